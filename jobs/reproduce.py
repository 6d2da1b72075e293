"""`python jobs/reproduce.py ...` is `t2ipal reproduce ...`."""

from _launch import launch

main = launch(__name__, __file__)
