"""What a check finds, in one line; no check takes long, and none ends the others."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "wrong", "not looked at"]
LIMIT_S = 15.0
"""For one check; what it waits for is then left alone."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    """Its name, one or two words."""
    state: State
    text: str
    """What is there, what to do next, or why it was not looked at; without secrets."""

    def __str__(self) -> str:
        return f"{self.state:<14} {self.check}: {' '.join(self.text.split())}"


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", text)


def wrong(check: str, text: str) -> Finding:
    """Something must be done."""
    return Finding(check, "wrong", text)


def not_looked_at(check: str, why: str) -> Finding:
    """Nobody knows."""
    return Finding(check, "not looked at", why)


def look(
    check: str, call: Callable[[], Finding | Iterable[Finding]], limit_s: float = LIMIT_S
) -> list[Finding]:
    """What a check found; an error of it, or too long a wait, is a finding too.

    Args:
        check: its name.
        call: does it, in a thread of its own.
        limit_s: after which it is given up.
    """
    done: Future[list[Finding]] = Future()

    def work() -> None:
        try:
            found = call()
            done.set_result([found] if isinstance(found, Finding) else [*found])
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return done.result(limit_s)
    except (OSError, RuntimeError, ValueError) as error:  # a TimeoutError is an OSError
        late = f"no answer within {limit_s:g} s. Check address and network."
        return [wrong(check, str(error) if done.done() else late)]
    except Exception as error:  # of a library: the other checks are made all the same
        return [wrong(check, f"{type(error).__name__}: {error}")]
