"""`python jobs/tune.py ...` is `t2ipal tune ...`."""

from _launch import launch

main = launch(__name__, __file__)
