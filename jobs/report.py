"""`python jobs/report.py ...` is `t2ipal report ...`."""

from _launch import launch

if __name__ == "__main__":
    launch(__file__)
