"""Work for later items while somebody uses what came of an earlier one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
NUM_AHEAD = 2
"""Results that wait, besides the one in use."""


def ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map`, with the next items worked on in a thread.

    What the work raises is raised where its result is due.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(1, "ahead") as worker:
        try:
            for item in items:
                waiting.append(worker.submit(work, item))
                if len(waiting) > NUM_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            worker.shutdown(cancel_futures=True)
