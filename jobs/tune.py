"""`python jobs/tune.py ...` is `t2ipal tune ...`."""

from _launch import launch

if __name__ == "__main__":
    launch(__file__)
