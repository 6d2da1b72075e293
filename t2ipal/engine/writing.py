"""Ray Data around `t2ipal.captions.written`: parts of a plan written by a pool of actors."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from t2ipal.captions.tasks import Task
from t2ipal.captions.written import WritingWork, task_values, tasks_of
from t2ipal.engine.actors import Work, each_on_actors
from t2ipal.pools import PoolConfig


def on_ray(
    work: WritingWork, parts: Sequence[Sequence[Task]], pool: PoolConfig | None = None
) -> Iterator[list[list[str]]]:
    """Writes every part on Ray; yields their texts in the order of the parts.

    Takes what `t2ipal.captions.written.in_process` takes, and gives the same texts.

    Args:
        work: what every worker loads.
        parts: what to write.
        pool: of the workers; None: as many as the machines that are there can hold.

    Raises:
        RuntimeError: a worker could not load the writer, or write.
    """
    items = [task_values(part) for part in parts]
    load = partial(_load, work)
    yield from each_on_actors(load, items, stage="captions", device=work.device, pool=pool)


def _load(work: WritingWork) -> Work:
    write = work.load()

    def part(values: list[dict[str, Any]]) -> list[list[str]]:
        return write(tasks_of(values))

    return part
