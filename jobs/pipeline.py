"""`python jobs/pipeline.py ...` is `t2ipal pipeline ...`."""

from _launch import launch

main = launch(__name__, __file__)
