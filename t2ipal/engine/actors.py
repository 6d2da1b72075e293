"""A pool of actors that load something once and then do one item after another, in their order.

What items are, and what is done with them, is the business of `extraction` and `prediction`.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import ray
import ray.data

from t2ipal.engine.metrics import Queue, WorkerMeter
from t2ipal.engine.waiting import give_signs, watch_workers
from t2ipal.places import runs_as_submitted_job
from t2ipal.pools import PoolConfig

MAX_BLOCKS = 4096
"""Ray hands out, and repeats after a crash, single blocks; each costs the driver some memory."""
logger = logging.getLogger(__name__)
Work = Callable[[Any], Any]
"""From one item to its result; both are plain values of JSON."""


def prepare_ray_data() -> None:
    """Leaves progress and patience to this package: Ray Data ends what it sees no progress of for
    half an hour, and a shard may take longer.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = -1


class _Actor:
    """Loads what the work needs once.

    An error becomes a row: Ray would start the actor again and again, and in the end show a page of
    its own frames. Only a fault of the device ends the process.
    """

    def __init__(self, load: Callable[[], Work], stage: str, num_threads: int, signs: str):
        give_signs(signs)
        import torch

        torch.set_num_threads(num_threads)
        self.error, self.num_finished = "", 0
        self.meter = WorkerMeter(stage)
        try:
            with self.meter.step("load"):
                self.work = load()
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self.error:
            return {"result": "", "error": self.error}
        try:
            with self.meter.step("work"):
                result = json.dumps(self.work(json.loads(row["item"])))
            self.num_finished += 1
            return {"result": result, "error": ""}
        except Exception as error:
            replace_if_device_failed(error, self.num_finished)
            return {"result": "", "error": f"{type(error).__name__}: {error}"}


def replace_if_device_failed(error: Exception, num_finished: int) -> None:
    """Ends an actor's process on a fault of its device, unless its replacement would be in vain.

    Ray then starts it anew, with a device that may work, and repeats its items.

    Args:
        error: of an item.
        num_finished: items that this process has done.
    """
    from t2ipal.devices import is_device_fault  # loads torch

    replaced = ray.get_runtime_context().was_current_actor_reconstructed
    if is_device_fault(error) and (num_finished or not replaced):
        logger.error("This process ends: its device failed.\n%s", error)
        os._exit(1)  # an actor that exits in Ray's own way is not restarted


def each_on_actors(
    load: Callable[[], Work],
    items: Sequence[Any],
    *,
    stage: str,
    device: str,
    pool: PoolConfig | None = None,
) -> Iterator[Any]:
    """The results of all items, in the order of the items.

    Args:
        load: called once in every actor.
        items: plain values.
        stage: under which the workers' metrics are counted.
        device: that the work runs on, as torch names it.
        pool: how many actors, and how large each is; None: as many as the machines that are there
            can hold.

    Raises:
        RuntimeError: an actor could not load, or do an item, or none started for too long.
    """
    pool = pool or PoolConfig()
    gpus = _gpus_of_each(pool, device)
    smallest, largest = pool_sizes(pool, gpus, len(items))
    watch, signs = watch_workers(smallest, pool.cpus_per_worker, gpus)
    prepare_ray_data()
    rows = [{"item": json.dumps(item)} for item in items]
    table = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS))
    table.context.execution_options.preserve_order = True  # of this data set alone
    results = table.map(
        cast(Any, _Actor),  # Ray's stubs know functions only
        fn_constructor_args=(load, stage, pool.cpus_per_worker, signs),
        compute=ray.data.ActorPoolStrategy(min_size=smallest, max_size=largest),
        num_cpus=pool.cpus_per_worker,
        num_gpus=gpus,
    )
    queue = Queue(stage, len(items))
    for row in watch.each(results.iter_rows()):
        if row["error"]:
            raise RuntimeError(f"A worker stopped: {row['error']}")
        queue.done()
        yield json.loads(row["result"])


def _gpus_of_each(pool: PoolConfig, device: str) -> float:
    if pool.gpus_per_worker is not None:
        return pool.gpus_per_worker
    there = ray.cluster_resources().get("GPU", 0) > 0
    grows = device.startswith("cuda") and runs_as_submitted_job()  # it may have none yet
    return float(device != "cpu" and (there or grows))


def pool_sizes(pool: PoolConfig, gpus: float, num_items: int) -> tuple[int, int]:
    """Smallest and largest number of workers, on the cluster as it is.

    Args:
        pool: what was asked for.
        gpus: of each worker.
        num_items: to be done.
    """
    there = ray.cluster_resources()
    return pool.sizes(num_items, there.get("CPU", 0), there.get("GPU", 0), gpus)
