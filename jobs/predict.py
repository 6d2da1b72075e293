"""`python jobs/predict.py ...` is `t2ipal predict ...`."""

from _launch import launch

main = launch(__name__, __file__)
