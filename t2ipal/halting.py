"""A halt that is asked for while work goes on, and taken where nothing is half done.

Who wants one opens `halting`; what works in pieces calls `halt_if_asked` between two of them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_asked: ContextVar[Callable[[], bool] | None] = ContextVar("is_asked", default=None)


class Halted(KeyboardInterrupt):
    """Work ends here, as by Ctrl-C: it is no failure, and the same command goes on."""


@contextmanager
def halting(is_asked: Callable[[], bool]) -> Iterator[None]:
    """Inside the `with` block, work halts once `is_asked` says so."""
    token = _is_asked.set(is_asked)
    try:
        yield
    finally:
        _is_asked.reset(token)


def halt_is_asked() -> bool:
    """Whether a halt is asked for."""
    is_asked = _is_asked.get()
    return is_asked is not None and is_asked()


def halt_if_asked() -> None:
    """Raises Halted where a halt is asked for."""
    if halt_is_asked():
        raise Halted
