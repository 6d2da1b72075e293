"""`python jobs/pretrain_pictovoc.py ...` is `t2ipal pretrain_pictovoc ...`."""

from _launch import launch

if __name__ == "__main__":
    launch(__file__)
