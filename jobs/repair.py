"""`python jobs/repair.py ...` is `t2ipal repair ...`."""

from _launch import launch

if __name__ == "__main__":
    launch(__file__)
