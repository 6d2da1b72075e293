"""`python jobs/write_captions.py ...` is `t2ipal write_captions ...`."""

from _launch import launch

main = launch(__name__, __file__)
