"""Counts what machines cost while a pipeline runs, and halts it when its budget is used up."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

from t2ipal.halting import Halted, halting
from t2ipal.pipeline.ledger import Ledger

LOOK_S = 5.0
"""Between two looks at the machines that are there."""
WRITE_S = 30.0
"""Between two writes: what a killed driver may leave uncounted."""
GRACE_S = 600.0
"""In which work comes to a place where nothing is half done. After it, it is interrupted."""
AGAIN_S = 5.0
"""Between two interruptions: a library may take the first one for its own."""
Machines = Callable[[], Mapping[str, str]]
"""Gives the machines that are there: id -> node type."""


class Meter:
    """Looks at the machines beside the work: `with meter.running(): work()`."""

    def __init__(
        self,
        ledger: Ledger,
        machines: Machines,
        budget_dollars: float | None = None,
        look_s: float = LOOK_S,
        grace_s: float = GRACE_S,
    ):
        """Starts nothing yet.

        Args:
            ledger: of the run.
            machines: that are there.
            budget_dollars: of the run, all its sessions together; None: no limit.
            look_s: seconds between two looks.
            grace_s: seconds from the halt that is asked for to the interruption.
        """
        self.ledger, self.machines, self.budget_dollars = ledger, machines, budget_dollars
        self.look_s, self.grace_s = look_s, grace_s
        self.reason = ""
        """Why the work halts, and what to do; "" while it does not."""
        self.ended = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Counts inside the `with` block, and halts what works there: it raises Halted."""
        before = signal.signal(signal.SIGUSR1, self._interrupt)
        looker = threading.Thread(target=self._look, daemon=True)
        looker.start()
        try:
            with halting(lambda: bool(self.reason)):
                yield
        except (Exception, KeyboardInterrupt) as error:
            if self.reason:  # whatever a library made of the interruption
                raise Halted from error
            raise
        finally:
            self.ended.set()
            looker.join()
            signal.signal(signal.SIGUSR1, before)
            self.ledger.write()

    def check(self) -> None:
        """Sets `reason` where the budget is used up, or what machines cost is not known."""
        spent, budget = self.ledger.total, self.budget_dollars
        if budget is None:
            return
        if self.ledger.session.unpriced:
            kinds = ", ".join(self.ledger.session.unpriced)
            self.reason = (
                f"the price table has no price of {kinds}, so the budget cannot be kept. Add it "
                "(--prices), and run the same command again"
            )
        elif spent.dollars >= budget:
            self.reason = (
                f"the budget of {budget:,.2f} dollars is used up. The same command with a larger "
                "--budget-dollars goes on"
            )

    def _look(self) -> None:
        last = written = time.monotonic()
        halted_at, pause_s = None, self.look_s
        machines: Mapping[str, str] = {}
        while True:
            is_last = self.ended.wait(pause_s)
            with contextlib.suppress(Exception):  # the head may not answer: those seen last count
                machines = self.machines()
            now = time.monotonic()
            self.ledger.add(machines, now - last)
            last = now
            if is_last:
                return
            self.check()
            if now - written >= WRITE_S:
                written = now
                with contextlib.suppress(OSError):  # the next write may get there
                    self.ledger.write()
            if self.reason:
                halted_at = halted_at or now
                if now - halted_at >= self.grace_s:
                    pause_s = AGAIN_S
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self.ended.is_set():
            raise Halted
