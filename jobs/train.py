"""`python jobs/train.py ...` is `t2ipal train ...`."""

from _launch import launch

main = launch(__name__, __file__)
