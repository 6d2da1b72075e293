"""`python jobs/demo.py ...` is `t2ipal demo ...`."""

from _launch import launch

if __name__ == "__main__":
    launch(__file__)
