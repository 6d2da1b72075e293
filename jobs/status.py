"""How far a synthesis is, from its store alone: while it goes on, or after.

    python jobs/status.py --run runs/coco
    python jobs/status.py --run s3://BUCKET/runs/coco --watch 30 --price-per-gpu-hour 3.5

Starts nothing and changes nothing. Rate and time left are those of the last ten minutes in which
the run was at work: a pause, in which no shard came for more than a minute and more than three
shards take, is left out. Work and cost are those of the devices while they make images;
loading, idle workers and lost shards come on top. The last line of the output is a JSON summary.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro

from jobs._job import run_job
from t2ipal.config import require
from t2ipal.store import RunStatus, Store, run_status


@dataclass(frozen=True)
class Options:
    """Shows what is done, what failed, the rate, the time left and the cost."""

    run: str
    """Folder that jobs/synthesize.py fills: a local path, or s3://bucket/prefix."""
    price_per_gpu_hour: float | None = None
    """Price of one GPU for an hour, in any currency; None: no cost is shown. What is shown is the
    cost of making images alone: loading, idle time and lost shards are not in it."""
    gpus_per_worker: float = 1.0
    """GPUs of each worker, as jobs/synthesize.py had them, for the cost; a share of one allowed."""
    watch: float | None = None
    """Seconds between looks; None: one look. Ends when every sample is there."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS; AWS_ENDPOINT_URL does the same."""


def describe(status: RunStatus, gpus_per_worker: float = 1.0) -> str:
    """The status as a few lines to read."""
    done = status.num_images + status.num_failed
    lines = [
        f"images  {status.num_images:,} of {status.num_samples:,}"
        f" ({done / status.num_samples:.1%} done), {status.num_failed:,} failed",
        *(f"        {count:,} x {reason}" for reason, count in status.failed_by_reason.items()),
        f"shards  {status.num_shards_done:,} of {status.num_shards:,},"
        f" {status.size_bytes / 2**20:,.1f} MiB",
    ]
    rate = status.images_per_second
    lines.append("rate    " + ("not known yet" if rate is None else f"{rate:,.1f} images/s"))
    if status.seconds_left is not None:
        lines[-1] += f", {_duration(status.seconds_left)} left" if status.seconds_left else ", done"
    lines.append(f"work    {status.worker_hours:,.2f} worker hours of making images")
    if status.cost is not None:
        lines[-1] += f", cost {status.cost:,.2f}"
        if status.cost_in_the_end is not None and status.seconds_left != 0:
            lines[-1] += f" of {status.cost_in_the_end:,.2f} in the end"
        lines.append(
            f"        at {gpus_per_worker:g} GPUs a worker; without loading, idle time, lost shards"
        )
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    watch = options.watch
    require(watch is None or watch > 0, f"watch must be > 0, got {watch}.")
    require(watch is None or isfinite(watch), f"watch must be finite, got {watch}.")
    store = Store(options.run, options.endpoint_url)
    while True:
        status = run_status(store, options.price_per_gpu_hour, options.gpus_per_worker)
        print(describe(status, options.gpus_per_worker), flush=True)
        if watch is None or status.seconds_left == 0:
            break
        print(flush=True)
        time.sleep(watch)
    result = {"run": store.uri, **dataclasses.asdict(status)}
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    run_job(main)
