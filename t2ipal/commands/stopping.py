"""How a job ends when it is told to: by SIGINT (Ctrl-C) or SIGTERM, at any moment.

What a handler raises is not enough: libraries catch it, put their own handler in place of ours, or
wait for something long. So a signal also wakes a thread, which ends the process where it does not
end by itself. That loses nothing: every job may be killed, and goes on from its store.
"""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

GO_ON = "stopped; run the same command again to go on"
GRACE_S = 2.5
"""For a job to put away what it is at: temporary files, the table of a search, Ray's processes."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_told: list[int] = []
"""The signal that ends this process, once there is one."""
_telling, _interrupted, _leaving = threading.RLock(), threading.Event(), threading.Event()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """From here on a signal ends this process: with one line, and 128 and its number as exit code.

    The `with` block gets a KeyboardInterrupt and a few seconds. A second signal ends it at once.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_forget)
    # Ray would answer SIGTERM with a page about a crash. It reads this where it is imported.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # of a job that a shell put into background
            signal.signal(number, _interrupt)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        _tell(signal.SIGINT)
    finally:
        _hear(reading)
        if _told:  # whatever libraries made of the signal: an error, an end, or nothing
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            _end(_descendants())
        _leaving.set()


def _interrupt(number: int, frame: FrameType | None) -> None:
    _tell(number)
    if _leaving.is_set():
        _end([])
    if not _interrupted.is_set():  # cleaning up is not interrupted again
        _interrupted.set()
        raise KeyboardInterrupt


def _forget() -> None:
    """In a forked process, whose signals are not this one's."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _watch(reading: int) -> None:
    """Ends the process some seconds after a signal, or with the next one."""
    while not _told:
        select.select([reading], [], [])
        _hear(reading)
    started = _descendants()  # now, for those that lose their parent before they end
    while select.select([reading], [], [], 0)[0]:
        os.read(reading, 64)  # the same signal once more: `timeout` sends it to a process twice
    select.select([reading], [], [], GRACE_S)
    _end(started)


def _hear(reading: int) -> None:
    """Takes notice of the first signal, where one came."""
    with _telling:
        if not _told and select.select([reading], [], [], 0)[0]:
            number = os.read(reading, 1)[0]
            if number in SIGNALS:  # and no other that a library has a handler for
                _tell(number)


def _tell(number: int) -> None:
    """Says, once, that the job stops; nothing that is said after it would help."""
    with _telling:
        if _told:
            return
        _told.append(number)
        start = "\n" if _bar_is_shown() else ""
        with contextlib.suppress(OSError):
            os.write(2, f"{start}{GO_ON}\n".encode())
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _bar_is_shown() -> bool:
    """Whether the last line on stderr has no end yet."""
    tqdm = sys.modules.get("tqdm")
    return tqdm is not None and len(getattr(tqdm.tqdm, "_instances", ())) > 0


def _descendants() -> list[Any]:
    try:
        import psutil

        return psutil.Process().children(recursive=True)
    except Exception:  # half imported, or gone meanwhile: nothing may keep this process from ending
        return []


def _end(started: list[Any]) -> NoReturn:
    for process in {*started, *_descendants()}:
        with contextlib.suppress(Exception):  # it may have ended
            process.kill()
    os._exit(128 + _told[0])
