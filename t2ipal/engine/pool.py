"""The actor pool: shard workers as Ray Data runs them."""

import dataclasses
import logging
from collections.abc import Generator, Sequence
from typing import Any, cast

import ray
import ray.data

from t2ipal.engine.actors import pool_sizes, prepare_ray_data, replace_if_device_failed
from t2ipal.engine.metrics import Queue, WorkerMeter
from t2ipal.engine.waiting import ask_to_end, give_signs, is_asked_to_end, watch_workers
from t2ipal.halting import halt_if_asked, halt_is_asked
from t2ipal.places import runs_as_submitted_job
from t2ipal.store import ShardCounts, Store
from t2ipal.synthesis.plans import ShardPlan
from t2ipal.synthesis.request import ExecutionConfig
from t2ipal.synthesis.worker import AfterCommitFactory, ShardWorker, SynthesizerFactory

SHARDS_IN_HAND = 2
"""Shards that a worker has in hand; its device works for one at a time."""
STAGE = "synthesis"
COUNTS = [field.name for field in dataclasses.fields(ShardCounts)]
"""What the driver learns of a finished shard."""
logger = logging.getLogger(__name__)


def on_ray(
    store: Store,
    config: Any,
    execution: ExecutionConfig,
    factory: SynthesizerFactory | None,
    after_commit: AfterCommitFactory | None,
    plans: Sequence[ShardPlan],
) -> Generator[ShardCounts, None, None]:
    """Makes every plan's shard on Ray; yields each one's counts as the pool commits it.

    Takes what `t2ipal.synthesis.worker.in_process` takes, and stores the same bytes.

    Raises:
        RuntimeError: a worker could not load its pipeline or write to the store, or none started
            for too long.
    """
    gpus = execution.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    smallest, largest = pool_sizes(execution, gpus, len(plans))
    if execution.gpus_per_worker is None and not gpus and runs_as_submitted_job():
        logger.warning(
            "No GPU is there yet: %d worker%s on CPU cores. On a cluster that grows, say what to "
            "grow to: gpus_per_worker and max_workers (--gpus-per-worker 1 --max-workers 8).",
            largest,
            " draws" if largest == 1 else "s draw",
        )
    threads = execution.cpus_per_worker
    watch, signs = watch_workers(smallest, threads, gpus)
    prepare_ray_data()
    # One row is one plan, and one block is one row: Ray hands out, and repeats after a crash,
    # single shards. Left to itself it would put a small file into one block.
    results = ray.data.from_items(
        [{"plan": plan.to_json()} for plan in plans], override_num_blocks=len(plans)
    ).map(
        cast(Any, _Actor),  # Ray's stubs know functions only
        fn_constructor_args=(store, config, factory, threads, after_commit, signs),
        compute=ray.data.ActorPoolStrategy(
            min_size=smallest,
            max_size=largest,
            # While one shard is encoded and uploaded, the device works on the next.
            max_concurrent_calls_per_actor=SHARDS_IN_HAND,
            max_tasks_in_flight_per_actor=SHARDS_IN_HAND,
            enable_true_multi_threading=True,
        ),
        num_cpus=threads,
        num_gpus=gpus,
    )
    queue, halts = Queue(STAGE, len(plans)), False
    for row in watch.each(results.iter_rows()):
        if row["error"]:
            raise RuntimeError(f"A worker stopped: {row['error']}")
        queue.done()
        if row["shard"]:  # else it was not begun any more
            yield ShardCounts(row["shard"], row["num_rows"], row["num_failed"])
        if not halts and halt_is_asked():
            halts = True
            ask_to_end(signs)
    halt_if_asked()


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
        after_commit: AfterCommitFactory | None,
        signs: str,
    ):
        give_signs(signs)
        self.signs, self.error = signs, ""
        self.num_finished = 0
        meter = WorkerMeter(STAGE)
        try:
            with meter.step("load"):
                self.worker = ShardWorker(store, config, factory, num_threads, after_commit, meter)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        result = {"shard": "", "num_rows": 0, "num_failed": 0, "error": self.error}
        if not self.error and not is_asked_to_end(self.signs):
            try:
                marker = self.worker(ShardPlan.from_json(row["plan"]))
                result.update({name: getattr(marker, name) for name in COUNTS})
                self.num_finished += 1
            except Exception as error:
                replace_if_device_failed(error, self.num_finished)
                result["error"] = f"{type(error).__name__}: {error}"
        return result
