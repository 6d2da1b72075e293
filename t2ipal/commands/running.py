"""What every job shares: parsing, a session on Ray or none, one line for errors, exit codes."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import make_dataclass
from typing import Annotated, Any, TypeVar

import tyro

from t2ipal.commands.stopping import GO_ON
from t2ipal.engine.config import RayConfig
from t2ipal.places import resolve_places
from t2ipal.pools import PoolConfig

Options = TypeVar("Options")
LEAST_COLUMNS = 40
"""Of a terminal, for which help is laid out."""
FLAT = tyro.conf.arg(name="")
"""Marks a config whose fields are options of the job itself, without a prefix."""


def parse(
    kind: type[Options],
    arguments: Sequence[str] | None,
    description: str | None,
    default: Options | None = None,
) -> Options:
    """The options of a job from its command line.

    Args:
        kind: their dataclass.
        arguments: words of the command line; None: those of the process.
        description: head of the help.
        default: options to start from.

    Raises:
        ValueError: what the options' own checks refuse.
    """
    # In another one, for tyro would print what the outermost class refuses, and end the process.
    whole: Any = make_dataclass("Whole", [("options", Annotated[kind, FLAT])])
    start = None if default is None else whole(default)
    with _columns():
        options = tyro.cli(whole, args=arguments, description=description, default=start).options
    return resolve_places(options)


@contextmanager
def _columns() -> Iterator[None]:
    """Makes every terminal wide enough: for one of 4 columns tyro works for hours, in gigabytes."""
    given = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(max(shutil.get_terminal_size().columns, LEAST_COLUMNS))
    try:
        yield
    finally:
        if given is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = given


def session(
    in_process: bool,
    ray: RayConfig,
    pool: PoolConfig,
    least_cpus: int = 1,
    least_gpus: float = 0,
) -> AbstractContextManager[Any]:
    """Connected to Ray inside the `with` block, or nothing where all is done in this process.

    Args:
        in_process: whether it is.
        ray: how long to wait.
        pool: which a private Ray must be able to hold.
        least_cpus: that something else in the block needs at once.
        least_gpus: the same.
    """
    if in_process:
        return nullcontext()
    from t2ipal.engine.session import connect

    cpus, gpus = max(least_cpus, pool.least_cpus), max(least_gpus, pool.least_gpus)
    return connect(ray, least_cpus=cpus, least_gpus=gpus)


def remark(text: str) -> None:
    """Tells a person something while a job is at work: on stderr, which no program reads."""
    print(text, file=sys.stderr, flush=True)


def finish(result: dict[str, Any]) -> dict[str, Any]:
    """Prints a job's summary as one JSON line, its last, and returns it."""
    print(json.dumps(result))
    return result


def run_job(main: Callable[[], Any]) -> None:
    """Runs a job's `main`; errors that a user can act on end it with one line and exit code 2."""
    try:
        main()
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(GO_ON, file=sys.stderr)
        sys.exit(130)
