"""`python jobs/choose.py ...` is `t2ipal choose ...`."""

from _launch import launch

main = launch(__name__, __file__)
