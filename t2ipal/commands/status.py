"""How far a synthesis is, from its store alone: while it goes on, or after.

    python jobs/status.py --run runs/coco
    python jobs/status.py --run s3://BUCKET/runs/coco --watch 30 --price-per-gpu-hour 3.5

Starts nothing and changes nothing. Rate and time left are those of the last ten minutes in which
the run was at work: a pause, in which no shard came for more than a minute and more than three
shards take, is left out. Work and cost are those of the devices while they make images;
loading, idle workers and lost shards come on top. Where jobs/pipeline.py made the run, what all its
machines have cost is shown too. The last line of the output is a JSON summary.
"""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from t2ipal.commands.running import finish, parse
from t2ipal.config import require
from t2ipal.pipeline.ledger import describe_spent, read_spent
from t2ipal.places import SharedUri
from t2ipal.store import RunWatch, Store, describe_status, run_status


@dataclass(frozen=True)
class Options:
    """Shows what is done, what failed, the rate, the time left and the cost."""

    run: SharedUri
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


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    options = parse(Options, arguments, __doc__)
    watch = options.watch
    require(watch is None or watch > 0, f"watch must be > 0, got {watch}.")
    require(watch is None or isfinite(watch), f"watch must be finite, got {watch}.")
    store = Store(options.run, options.endpoint_url)
    looks = RunWatch(store)
    while True:
        status = run_status(looks, options.price_per_gpu_hour, options.gpus_per_worker)
        print(describe_status(status, options.gpus_per_worker), flush=True)
        spent = read_spent(store)
        if spent.machine_hours:
            print(describe_spent(spent), flush=True)
        if watch is None or status.seconds_left == 0:
            break
        print(flush=True)
        time.sleep(watch)
    return finish({"run": store.uri, **dataclasses.asdict(status), "spent": spent.dollars})
