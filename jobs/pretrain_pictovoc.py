"""`python jobs/pretrain_pictovoc.py ...` is `t2ipal pretrain_pictovoc ...`."""

from _launch import launch

main = launch(__name__, __file__)
