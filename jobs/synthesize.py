"""`python jobs/synthesize.py ...` is `t2ipal synthesize ...`."""

from _launch import launch

if __name__ == "__main__":
    launch(__file__)
