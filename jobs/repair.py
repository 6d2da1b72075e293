"""`python jobs/repair.py ...` is `t2ipal repair ...`."""

from _launch import launch

main = launch(__name__, __file__)
