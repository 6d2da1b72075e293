"""One file a job: parse, connect, one call, print; `main` holds all of them as `t2ipal JOB`."""
