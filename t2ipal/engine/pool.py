"""The actor pool: shard workers as Ray Data runs them."""

import logging
import os
from collections.abc import Generator
from dataclasses import dataclass
from math import isfinite
from typing import Any, cast

import ray
import ray.data

from t2ipal.config import require
from t2ipal.engine.plans import ShardPlan, ShardWorker, SynthesizerFactory
from t2ipal.engine.session import runs_as_submitted_job
from t2ipal.store import Store

SHARDS_IN_HAND = 2
"""Shards that a worker has in hand; its device works for one at a time."""
COUNTS = ("shard", "num_rows", "num_failed")
"""What the driver learns of a finished shard."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunConfig:
    """Where a synthesis runs and when it gives up; nothing here changes an image."""

    min_workers: int | None = None
    """Workers to start with; None: as many as the machines that are there now can hold."""
    max_workers: int | None = None
    """Workers at most, on a cluster that grows; None: the same as min_workers."""
    cpus_per_worker: int = 1
    """CPU cores, and threads, of each worker."""
    gpus_per_worker: float | None = None
    """GPUs of each worker, a share of one allowed; None: 1 where there are GPUs, else 0."""
    max_failed_fraction: float = 0.05
    """Share of samples that may fail, 0 to 1, before the run stops with an error."""
    retry_failed: bool = False
    """Also make again the samples that failed at their last attempt, with other seeds: those of the
    number of the attempt, which is kept with each sample."""

    def __post_init__(self):
        for name in ("min_workers", "max_workers", "cpus_per_worker"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} must be > 0, got {value}.")
        gpus, share = self.gpus_per_worker, self.max_failed_fraction
        require(gpus is None or gpus >= 0, f"gpus_per_worker must be >= 0, got {gpus}.")
        require(gpus is None or isfinite(gpus), f"gpus_per_worker must be finite, got {gpus}.")
        require(0 <= share <= 1, f"max_failed_fraction must be in 0..1, got {share}.")
        if self.min_workers is not None and self.max_workers is not None:
            require(
                self.min_workers <= self.max_workers,
                f"min_workers must be <= max_workers, got {self.min_workers} > {self.max_workers}.",
            )


def work_on_pool(
    plans: list[ShardPlan],
    store: Store,
    config: Any,
    run: RunConfig,
    factory: SynthesizerFactory | None,
    features: Any = None,
) -> Generator[dict[str, Any], None, None]:
    """Makes every plan's shard on Ray; yields each one's counts as the pool commits it.

    `config`, `factory` and `features` are those of `ShardWorker`.

    Raises:
        RuntimeError: a worker could not load its pipeline or write to the store.
    """
    gpus = run.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    smallest, largest = _pool_size(run, gpus, len(plans))
    if run.gpus_per_worker is None and not gpus and runs_as_submitted_job():
        logger.warning(
            "No GPU is there yet: %d worker%s on CPU cores. On a cluster that grows, say what to "
            "grow to: gpus_per_worker and max_workers (--gpus-per-worker 1 --max-workers 8).",
            largest,
            " draws" if largest == 1 else "s draw",
        )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # One row is one plan, and one block is one row: Ray hands out, and repeats after a crash,
    # single shards. Left to itself it would put a small file into one block.
    results = ray.data.from_items(
        [{"plan": plan.to_json()} for plan in plans], override_num_blocks=len(plans)
    ).map(
        cast(Any, _Actor),  # Ray's stubs know functions only
        fn_constructor_args=(store, config, factory, run.cpus_per_worker, features),
        compute=ray.data.ActorPoolStrategy(
            min_size=smallest,
            max_size=largest,
            # While one shard is encoded and uploaded, the device works on the next.
            max_concurrent_calls_per_actor=SHARDS_IN_HAND,
            max_tasks_in_flight_per_actor=SHARDS_IN_HAND,
            enable_true_multi_threading=True,
        ),
        num_cpus=run.cpus_per_worker,
        num_gpus=gpus,
    )
    for row in results.iter_rows():
        if row["error"]:
            raise RuntimeError(f"A worker stopped: {row['error']}")
        yield {name: row[name] for name in COUNTS}


def _pool_size(run: RunConfig, gpus: float, num_plans: int) -> tuple[int, int]:
    """Smallest and largest number of workers; never more than there are shards to make."""
    resources = ray.cluster_resources()
    fitting = int(resources.get("CPU", 0) // run.cpus_per_worker)
    if gpus > 0:
        fitting = min(fitting, int(resources.get("GPU", 0) // gpus))
    smallest = run.min_workers or max(1, min(fitting, run.max_workers or fitting))
    largest = max(smallest, run.max_workers or 0)
    return min(smallest, num_plans), min(largest, num_plans)


class _Actor:
    """The shard worker as Ray Data wants it: rows in, rows out.

    An error becomes a row: the run then stops with one clear line, where Ray would start the
    actor again and again, and in the end show a page of its own frames. Only a fault of the device
    ends the process: Ray starts it anew, with a device that may work, and repeats its plans.
    """

    def __init__(
        self,
        store: Store,
        config: Any,
        factory: SynthesizerFactory | None,
        num_threads: int,
        features: Any,
    ):
        self.error = ""
        self.num_finished = 0
        try:
            self.worker = ShardWorker(store, config, factory, num_threads, features)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        result = {"shard": "", "num_rows": 0, "num_failed": 0, "error": self.error}
        if not self.error:
            try:
                marker = self.worker(ShardPlan.from_json(row["plan"]))
                result.update({name: marker[name] for name in COUNTS})
                self.num_finished += 1
            except Exception as error:
                self._replace_if_device_failed(error)
                result["error"] = f"{type(error).__name__}: {error}"
        return result

    def _replace_if_device_failed(self, error: Exception) -> None:
        """Ends this process on a fault of its device, unless its replacement would be in vain."""
        from t2ipal.devices import is_device_fault  # loads torch

        replaced = ray.get_runtime_context().was_current_actor_reconstructed
        if is_device_fault(error) and (self.num_finished or not replaced):
            logger.error("This process ends: its device failed.\n%s", error)
            os._exit(1)  # an actor that exits in Ray's own way is not restarted
