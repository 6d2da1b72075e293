"""`python jobs/status.py ...` is `t2ipal status ...`."""

from _launch import launch

main = launch(__name__, __file__)
