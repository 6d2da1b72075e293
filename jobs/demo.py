"""`python jobs/demo.py ...` is `t2ipal demo ...`."""

from _launch import launch

main = launch(__name__, __file__)
