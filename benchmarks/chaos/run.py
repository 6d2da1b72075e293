"""Synthesis while processes die and the object store fails, against an undisturbed run.

    python benchmarks/chaos/run.py --output runs/chaos
    python benchmarks/chaos/run.py --output runs/chaos-ceph --server ceph

Two drivers make one output with a stub generator on a private Ray of several nodes. Meanwhile
actors, other worker processes, drivers and whole nodes are killed with SIGKILL, and a proxy before
the store answers errors, resets connections, cuts bodies short and delays. Killed drivers are
started again with the same command. The run grows until there were enough kills and faults; some
samples fail, and the commands that follow make them again. After it every object must be byte for
byte that of a run in one process without any of this.

Writes chaos.json and the drivers' logs into the output folder; the last line of the output is a
JSON summary, and the exit code is 1 where something does not hold.
"""

import dataclasses
import itertools
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.chaos.checks import all_problems, fetch, marker_problems, orphans, plant_orphan
from benchmarks.chaos.cluster import ACTOR, NODE, WORKER, small_cluster
from benchmarks.chaos.driver import StubSynthesizer, Work
from benchmarks.chaos.playing import (
    DRIVER,
    ROOT,
    Chaos,
    Disturbance,
    driver_command,
    finish,
    new_folder,
)
from benchmarks.chaos.store import faulty_store
from t2ipal.commands.running import FLAT, parse, run_job
from t2ipal.store import Store, committed_shards, read_samples
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.request import ExecutionConfig

KILLS = {ACTOR: 4, WORKER: 2, DRIVER: 2, NODE: 1}
"""How often each kind of process is killed, of nine times."""
LOOKED_AT = 5
"""New shards whose bytes are compared with their markers after each kill."""


@dataclass(frozen=True)
class Options(Disturbance):
    """Kills and faults at random, then checks."""

    workers_per_driver: int = 2
    seconds_per_image: float = 0.02
    """For which the stub generator sleeps."""
    work: Annotated[Work, FLAT] = field(default_factory=Work)


class Observer:
    """Looks at the run's objects while it is disturbed."""

    def __init__(self, store: Store, seed: int):
        self.store = store  # as it is; the drivers see it through the proxy
        self.orphans_seen: set[str] = set()
        self.problems: list[str] = []
        self._looked_at: set[str] = set()
        self._rng = random.Random(seed)

    def look(self) -> None:
        """Counts objects without a marker, and compares some new shards with their markers."""
        keys = self.store.list("images/")
        self.orphans_seen.update(orphans(keys))
        shards = {key[len("images/") : -len(".json")] for key in keys if key.endswith(".json")}
        new = sorted(shards - self._looked_at)
        some = self._rng.sample(new, min(LOOKED_AT, len(new)))
        self._looked_at.update(some)
        self.problems += marker_problems(self.store, some)


def run(options: Options) -> dict[str, Any]:
    """Disturbs and checks; returns what there was and every problem."""
    folder, started = new_folder(options.output), time.monotonic()
    reference = Store(folder / "reference")
    factory = partial(StubSynthesizer, failing=options.work.failing)
    again = ExecutionConfig(max_failed_fraction=1.0, retry_failed=True)
    with faulty_store(options.server, folder, options.fault_rate, options.seed) as (store, proxy):
        observer = Observer(store, options.seed)
        with small_cluster(options.num_nodes, options.cpus_per_node, str(ROOT)) as nodes:
            chaos = Chaos(options, nodes, proxy, KILLS, observer.look)
            for number in itertools.count():
                num_images = options.work.images_per_caption + number
                work = dataclasses.replace(options.work, images_per_caption=num_images)
                request = work.request()
                synthesize(reference, request, again, factory=factory)
                command = driver_command(
                    "driver.py", store, nodes, proxy, num_workers=options.workers_per_driver,
                    seconds_per_image=options.seconds_per_image, **dataclasses.asdict(work),
                )  # fmt: skip
                if not chaos.play(f"round{number}", command) or not chaos.lacking():
                    break
            # What failed in the last round is made again.
            summary = synthesize(reference, request, again, factory=factory)
            if chaos.in_time:
                chaos.play("last", command)
        # No process of the run is left that could still write.
        left = orphans(store.list())
        found = fetch(store, folder / "found")
    if found.exists("images/00000.json"):
        plant_orphan(found)
    samples = [(c.caption_id, k) for c in request.captions.kept for k in range(num_images)]
    problems = [*observer.problems, *chaos.problems(), *all_problems(found, reference, samples)]
    return {
        "output": options.output,
        "server": options.server,
        "seconds": round(time.monotonic() - started, 1),
        "rounds": number + 1,
        "shards": summary.num_shards,
        "samples": len(samples),
        "samples_made_again": sum(
            row.attempt > 0 for row in read_samples(reference, committed_shards(reference))
        ),
        **chaos.summary(),
        "orphans_seen": len(observer.orphans_seen),
        "orphans_left": len(left),
        "problems": problems,
    }


def described(result: dict[str, Any]) -> list[str]:
    """What was made, as lines to read."""
    return [
        f"{result['samples']} samples in {result['shards']} shards, {result['rounds']} rounds, "
        f"{result['driver_starts']} driver starts, {result['seconds']} s on {result['server']}",
        f"{result['samples_made_again']:6}  samples failed and were made again",
        f"{result['orphans_seen']:6}  objects seen without a marker meanwhile",
        f"{result['orphans_left']:6}  of these left",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs and prints; exits with 1 where there is a problem."""
    result = run(parse(Options, arguments, __doc__))
    finish(result, described(result))


if __name__ == "__main__":
    run_job(main)
