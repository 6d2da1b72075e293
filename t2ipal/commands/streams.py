"""What a job prints to, whatever there is: a terminal of any alphabet, a file, a pipe, nothing."""

import contextlib
import io
import os
import re
import select
import sys
from collections.abc import Iterator

STREAMS = ("stdin", "stdout", "stderr")
READER_GONE = 141
"""Exit code of a process whose output nobody reads any more, as a shell gives it."""
TERMINAL_COMMANDS = re.compile(
    r"\x1b(?!\[[0-9;]*m)"  # all but colors
    r"|(?!\A)\r(?!\n|\Z)"  # back to the line's start, but as bars write it
    r"|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]"
    r"|[\u202a-\u202e\u2066-\u2069]"  # letters in another order
)
"""What makes a terminal do something else than show a text: captions, class names and names of
files come from strangers."""
OF_BARS = re.compile(r"\n*(\x1b\[A)*")
"""What one of several bars writes to find its line."""


def open_missing_streams() -> None:
    """Puts /dev/null where the process was started with a closed stream.

    Otherwise the next file to be opened would take its number, and get what C code prints.
    """
    for number, name in enumerate(STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


@contextlib.contextmanager
def steady_streams() -> Iterator[None]:
    """Lets everything be printed inside the `with` block and after it, as texts alone; and ends the
    process without a word where who reads its output has gone, as `head` does after some lines.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            write = stream.write
            setattr(stream, "write", lambda text, write=write: write(printable(text)))  # noqa: B010
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not any(map(_reader_has_gone, (1, 2))):
            raise  # it was another pipe
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            if _reader_has_gone(number):
                os.dup2(nowhere, number)  # what is still buffered goes there
        sys.exit(READER_GONE)


def printable(text: str) -> str:
    """A text with the commands to a terminal that are in it written out, as in `\\x1b`."""
    if OF_BARS.fullmatch(text):
        return text
    return TERMINAL_COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _reader_has_gone(number: int) -> bool:
    poll = select.poll()
    poll.register(number, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
