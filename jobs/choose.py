"""`python jobs/choose.py ...` is `t2ipal choose ...`."""

from _launch import launch

if __name__ == "__main__":
    launch(__file__)
