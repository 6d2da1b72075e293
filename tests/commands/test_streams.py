"""What a job prints to: narrow terminals, pipes that close, other alphabets, nothing at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STATUS = f"'{sys.executable}' '{ROOT}/jobs/status.py'"


def shell(script, **variables):
    environment = {**os.environ, **variables}
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, env=environment, timeout=60, cwd=ROOT
    )


@pytest.mark.parametrize("columns", ["0", "4", "40"])
def test_help_in_a_narrow_terminal(columns):
    done = shell(f"{STATUS} --help", COLUMNS=columns)
    assert done.returncode == 0 and b"--watch" in done.stdout
    assert len(done.stdout) < 20_000


def test_a_reader_that_goes_ends_the_job_without_a_word():
    done = shell(f"{STATUS} --help | head -n 1; exit ${{PIPESTATUS[0]}}")
    assert done.stderr == b"" and done.stdout.startswith(b"usage: ")
    assert done.returncode in (0, 141)  # the help may fit into the pipe
    done = shell(f"{STATUS} --help | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (141, b"")


def test_streams_that_are_closed(tmp_path):
    script = f"{STATUS} --run '{tmp_path}' <&- >&-"
    done = shell(script)
    assert done.returncode == 2 and done.stderr.startswith(b"error: No run in ")
    assert shell(f"{script} 2>&-").returncode == 2


def test_letters_that_the_terminal_does_not_know(tmp_path):
    run = os.fsdecode(os.fsencode(tmp_path) + b"/l\xe4uft")
    done = shell(f'{STATUS} --run "$RUN"', RUN=run, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 2 and done.stderr.startswith(b"error: No run in ")
    assert done.stderr.isascii()
    assert shell(f"{STATUS} --help", PYTHONIOENCODING="ascii", LC_ALL="C").stdout.isascii()
