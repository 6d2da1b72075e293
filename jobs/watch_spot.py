"""`python jobs/watch_spot.py ...` is `t2ipal watch_spot ...`."""

from _launch import launch

main = launch(__name__, __file__)
