"""`python jobs/dashboard.py ...` is `t2ipal dashboard ...`."""

from _launch import launch

main = launch(__name__, __file__)
