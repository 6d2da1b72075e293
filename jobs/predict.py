"""`python jobs/predict.py ...` is `t2ipal predict ...`."""

from _launch import launch

if __name__ == "__main__":
    launch(__file__)
