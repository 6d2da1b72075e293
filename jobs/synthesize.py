"""`python jobs/synthesize.py ...` is `t2ipal synthesize ...`."""

from _launch import launch

main = launch(__name__, __file__)
