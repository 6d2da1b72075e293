"""`python jobs/status.py ...` is `t2ipal status ...`."""

from _launch import launch

if __name__ == "__main__":
    launch(__file__)
