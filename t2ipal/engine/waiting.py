"""Waiting for Ray: a job says for what it waits, and gives up in the end.

Ray waits for workers and machines without a word and without an end. A worker that is at work gives
signs of life, however long its work takes; the wait is the time without any.
"""

import contextlib
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from tqdm import tqdm

from t2ipal.engine.config import RayConfig

FIRST_NOTICE_S = 20.0
NOTICE_S = 60.0
"""Between further notices."""
SIGN_S = 2.0
"""Between two signs of life of a worker."""
LOOK_S = 1.0
"""Between two looks for one."""
AGAIN_S = 20.0
"""Between two interruptions of a call."""
NAMESPACE = "t2ipal"
"""Of the signs, in the table that a cluster's head keeps for such things."""
max_wait_s = ContextVar("max_wait_s", default=RayConfig().max_wait_s)
"""Of the session that is open."""
_END_KEY = "-end"
Item = TypeVar("Item")
_END: Any = object()


class Watch:
    """Looks after a call that may wait for Ray: `with watch.over(): call()`.

    Where it waits too long, the call is interrupted as by Ctrl-C, and RuntimeError raised. That
    needs the main thread; in another one a wait is told, and has no end.
    """

    def __init__(
        self,
        describe: Callable[[], str],
        sign: Callable[[], Any] = lambda: None,
        most_s: float | None = None,
        advice: str = "",
    ):
        """Starts nothing yet.

        Args:
            describe: what is waited for, and what is there: the middle of a sentence.
            sign: another value than before ends the wait.
            most_s: how long a wait may be; None: as long as the session says.
            advice: what to do about a wait that was too long.
        """
        self.describe, self.sign, self.advice = describe, sign, advice
        self.most_s = max_wait_s.get() if most_s is None else most_s
        self.failure: str | None = None  # of the call
        self._called_at: float | None = None  # None: nothing is being waited for

    @contextlib.contextmanager
    def over(self) -> Iterator[None]:
        """Looks after what is called inside the `with` block."""
        with self._looking(), self._call():
            yield

    def each(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, of which each may have to be waited for."""
        with self._looking():
            iterator = iter(items)
            while True:
                with self._call():
                    item = next(iterator, _END)
                if item is _END:
                    return
                yield item

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        ended, in_main = threading.Event(), threading.current_thread() is threading.main_thread()
        looker = threading.Thread(target=self._look, args=(ended, in_main), daemon=True)
        before = signal.signal(signal.SIGALRM, self._interrupt) if in_main else None
        looker.start()
        try:
            yield
        finally:
            ended.set()
            looker.join()  # before Ray goes, which it may be asking
            if in_main:
                signal.signal(signal.SIGALRM, before)

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        self.failure, self._called_at = None, time.monotonic()
        try:
            yield
        except KeyboardInterrupt:
            if self.failure is None:
                raise
            raise RuntimeError(self.failure) from None
        finally:
            self._called_at = None

    def _interrupt(self, *_: Any) -> None:
        if self.failure is not None and self._called_at is not None:
            raise KeyboardInterrupt

    def _look(self, ended: threading.Event, in_main: bool) -> None:
        seen, seen_at, next_notice = None, 0.0, FIRST_NOTICE_S
        while not ended.wait(LOOK_S):
            sign, called_at, now = self.sign(), self._called_at, time.monotonic()
            if sign is not None and sign != seen:
                seen, seen_at = sign, now
            waited = 0.0 if called_at is None else now - max(called_at, seen_at)
            if waited < FIRST_NOTICE_S:
                next_notice = FIRST_NOTICE_S
            if in_main and waited >= self.most_s:
                self.failure = (
                    f"Gave up after {waited:.0f} s of waiting for {self.describe()} {self.advice}"
                )
                # Again and again, for what is interrupted may take the first one for its own.
                while self.failure is not None and not ended.is_set():
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
                    ended.wait(AGAIN_S)
            elif waited >= next_notice:
                next_notice = waited + NOTICE_S
                tqdm.write(f"Waiting for {self.describe()} {waited:.0f} s so far.", sys.stderr)


def watch_workers(
    count: int, cpus: float, gpus: float, together: bool = False
) -> tuple[Watch, str]:
    """A watch over the work of some workers, and the key for their `give_signs`.

    Args:
        count: workers that the work asks for.
        cpus: of each.
        gpus: of each.
        together: whether none of them starts before all can.
    """
    key, least = uuid.uuid4().hex, count if together else 1
    each = f"{cpus:g} CPU{'s' * (cpus != 1)}"
    each += f" and {gpus:g} GPU{'s' * (gpus != 1)}" if gpus else ""
    asked = f"a worker with {each}" if count == 1 else f"{count} workers with {each} each"
    return Watch(
        lambda: f"{asked}: {_reason(cpus, gpus, least)}",
        lambda: _read_sign(key),
        advice="--max-wait-s waits longer, where machines may still come.",
    ), key


def give_signs(key: str) -> threading.Event:
    """Tells the driver that this worker lives, until the event is set or the process ends."""
    ended = threading.Event()

    def tell() -> None:
        while True:
            with contextlib.suppress(Exception):  # the next one may reach the head
                _internal_kv_put(key, os.urandom(8), namespace=NAMESPACE)
            if ended.wait(SIGN_S):
                return

    threading.Thread(target=tell, daemon=True).start()
    return ended


@contextlib.contextmanager
def signs_of_life(key: str) -> Iterator[None]:
    """As `give_signs`, inside the `with` block."""
    ended = give_signs(key)
    try:
        yield
    finally:
        ended.set()


def ask_to_end(key: str) -> None:
    """Lets workers that give signs under this key finish what they have in hand, and no more."""
    _internal_kv_put(key + _END_KEY, b"1", namespace=NAMESPACE)


def is_asked_to_end(key: str) -> bool:
    """Whether a worker should begin nothing more."""
    return _read_sign(key + _END_KEY) is not None


def _read_sign(key: str) -> bytes | None:
    try:
        return _internal_kv_get(key, namespace=NAMESPACE)
    except Exception:
        return None  # the head does not answer; `_describe` says so


def _reason(cpus: float, gpus: float, least: int) -> str:
    """Why so many workers have not started, from what is there."""
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        free = ray.available_resources()
    except Exception as error:
        return f"the head of the cluster does not answer ({type(error).__name__})."
    totals = [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes]
    all_cpus, all_gpus = (sum(numbers) for numbers in zip((0.0, 0.0), *totals))
    machines = f"{len(nodes)} machine{'s' * (len(nodes) != 1)}"
    there = f"there are {all_cpus:g} CPUs and {all_gpus:g} GPUs on {machines}"
    if not any(total[0] >= cpus and total[1] >= gpus for total in totals):
        return f"no machine has that, {there}."
    if all_cpus < least * cpus or all_gpus < least * gpus:
        return f"all must start together, and {there}."
    logs = Path(ray.get_runtime_context().get_temp_dir(), "session_latest", "logs")
    return (
        f"{there}, of which {free.get('CPU', 0.0):g} CPUs and {free.get('GPU', 0.0):g} GPUs are "
        f"free, and none has started. Ray's logs are in {logs}."
    )
