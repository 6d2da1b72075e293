"""`python jobs/evaluate.py ...` is `t2ipal evaluate ...`."""

from _launch import launch

if __name__ == "__main__":
    launch(__file__)
