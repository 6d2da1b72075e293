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


@contextlib.contextmanager
def ended_by_signals(line: str = GO_ON) -> Iterator[None]:
    """From here on a signal ends this process: with one line, and 128 and its number as exit code.

    The `with` block gets a KeyboardInterrupt and a few seconds. A second signal ends it at once.
    """
    ending = _Ending(line)
    threading.Thread(target=ending.watch, daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        ending.tell(signal.SIGINT)
    finally:
        ending.hear()
        ending.has_left = True
        if ending.number:  # whatever libraries made of the signal: an error, an end, or nothing
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            ending.end()


class _Ending:
    """The one end of this process. Its thread is told of a signal by Python itself."""

    def __init__(self, line: str):
        self.line, self.number = line, 0
        self.is_interrupted = self.has_left = False
        self.telling = threading.RLock()
        self.reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=_forget)
        # Ray would answer SIGTERM with a page about a crash. It reads this where it is imported.
        os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # a shell's, of a job in its background
                signal.signal(number, self.interrupt)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The handler, in the main thread; once, so that cleaning up is not interrupted."""
        self.tell(number)
        if self.has_left:
            self.end()
        if not self.is_interrupted:
            self.is_interrupted = True
            raise KeyboardInterrupt

    def watch(self) -> None:
        """Ends the process some seconds after a signal, or with the next one."""
        while not self.number:
            select.select([self.reading], [], [])
            self.hear()
        started = _descendants()  # now, for those that lose their parent before they end
        while select.select([self.reading], [], [], 0)[0]:
            os.read(self.reading, 64)  # the same once more: `timeout` sends it to a process twice
        select.select([self.reading], [], [], GRACE_S)
        self.end(started)

    def hear(self) -> None:
        """Takes notice of the first signal, where one came."""
        with self.telling:
            if not self.number and select.select([self.reading], [], [], 0)[0]:
                number = os.read(self.reading, 1)[0]
                if number in SIGNALS:  # and no other that a library has a handler for
                    self.tell(number)

    def tell(self, number: int) -> None:
        """Says, once, that the job stops; nothing that is said after it would help."""
        with self.telling:
            if self.number:
                return
            self.number = number
            start = "\n" if _bar_is_shown() else ""
            with contextlib.suppress(OSError):
                os.write(2, f"{start}{self.line}\n".encode())
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    def end(self, started: list[Any] | None = None) -> NoReturn:
        """Ends this process and all that it started; `started`: some that may be no child now."""
        for process in {*(started or ()), *_descendants()}:
            with contextlib.suppress(Exception):  # it may have ended
                process.kill()
        os._exit(128 + self.number)


def _forget() -> None:
    """In a forked process, whose signals are not this one's."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _bar_is_shown() -> bool:
    """Whether the last line on stderr has no end yet."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return len(getattr(tqdm, "_instances", ())) > 0


def _descendants() -> list[Any]:
    try:
        import psutil

        return psutil.Process().children(recursive=True)
    except Exception:  # half imported, or gone meanwhile: nothing may keep this process from ending
        return []
