"""`python jobs/train.py ...` is `t2ipal train ...`."""

from _launch import launch

if __name__ == "__main__":
    launch(__file__)
