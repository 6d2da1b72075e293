"""What a job prints to: narrow terminals, pipes that close, other alphabets, nothing at all."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from t2ipal.commands.streams import printable, steady_streams

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
    run = os.fsdecode(os.fsencode(tmp_path) + b"/l\xe4u\x1b]0;ft\x07")
    done = shell(f'{STATUS} --run "$RUN"', RUN=run, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 2 and done.stderr.startswith(b"error: No run in ")
    assert done.stderr.isascii() and rb"u\x1b]0;ft\x07" in done.stderr
    assert shell(f"{STATUS} --help", PYTHONIOENCODING="ascii", LC_ALL="C").stdout.isascii()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a dog\tand\n猫 été\r\n", "a dog\tand\n猫 été\r\n"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x1b[2J\x1b[H", r"\x1b[2J\x1b[H"),
        ("a\x1b[A", r"a\x1b[A"),
        ("\x9b2J\x08\0", r"\x9b2J\x08\x00"),
        ("error\rok", r"error\rok"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),
        ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        ("\r 50%|##  |\r", "\r 50%|##  |\r"),
        ("\n\n\x1b[A\x1b[A", "\n\n\x1b[A\x1b[A"),
    ],
)
def test_a_terminal_is_told_nothing_but_texts(text, shown):
    assert printable(text) == shown


def test_everything_that_is_printed_goes_through_it(monkeypatch):
    streams = [io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    with steady_streams():
        print("a\x1b[2J")
        print("é\x07", file=sys.stderr)
    print("\x1bc", file=sys.stderr)  # the error that ends a job
    written = [stream.buffer.getvalue() for stream in streams]  # type: ignore
    assert written == [b"a\\x1b[2J\n", b"\\xe9\\x07\n\\x1bc\n"]
