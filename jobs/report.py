"""`python jobs/report.py ...` is `t2ipal report ...`."""

from _launch import launch

main = launch(__name__, __file__)
