"""`python jobs/evaluate.py ...` is `t2ipal evaluate ...`."""

from _launch import launch

main = launch(__name__, __file__)
