"""`python jobs/doctor.py ...` is `t2ipal doctor ...`."""

from _launch import launch

main = launch(__name__, __file__)
