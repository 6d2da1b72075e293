"""Features and training while processes die and the object store fails, against undisturbed ones.

    python benchmarks/chaos/training.py --output runs/chaos-training
    python benchmarks/chaos/training.py --output runs/chaos-ceph --server ceph

A driver trains recognizers on a private Ray of several nodes, with Ray Train workers that become
fewer and more. Meanwhile workers, other processes, whole nodes and the driver are killed with
SIGKILL, and a proxy before the store answers errors, resets connections, cuts bodies short and
delays. A killed driver is started again with the same command. Seeds are added until there were
enough kills and faults. After it every loss of every epoch must be that of a run in one process
without any of this, each epoch must be there once, and nothing else may be left in the store.

Writes chaos.json and the driver's logs into the output folder; the last line of the output is a
JSON summary, and the exit code is 1 where something does not hold.
"""

import contextlib
import dataclasses
import itertools
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.chaos.checks import fetch
from benchmarks.chaos.cluster import ACTOR, NODE, WORKER, small_cluster
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
from benchmarks.chaos.training_checks import training_problems
from benchmarks.chaos.training_driver import METHODS, Work, train
from t2ipal.captions import Caption, filter_captions, load_vocabulary
from t2ipal.commands.running import FLAT, parse, run_job
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.features.config import BackboneConfig
from t2ipal.features.extraction import extract_run
from t2ipal.pictovoc.captions import world_captions
from t2ipal.store import Store
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.rendering import RenderingSynthesizer
from t2ipal.synthesis.request import SynthesisRequest
from t2ipal.training.runs import CHECKPOINT

KILLS = {ACTOR: 4, WORKER: 1, DRIVER: 2, NODE: 2}
"""How often each kind of process is killed, of nine times."""


@dataclass(frozen=True)
class Options(Disturbance):
    """Kills and faults at random, then checks."""

    min_kills: int = 10
    """Processes and nodes to kill at least; killing ends with enough kills and faults."""
    min_faults: int = 300
    """Faults that the proxy is to make before the run may end."""
    fault_rate: float = 0.2
    """Share of the store's requests that meet a fault."""
    seconds_between_kills: float = 3.0
    """On average, from when something was done since the last one."""
    num_drivers: int = 1
    """Drivers of the same output at once."""
    cpus_per_node: int = 1
    """Logical ones."""
    num_workers: str = "1:3"
    """Of the training: a number, or MIN:MAX."""
    num_captions: int = 40
    images_per_shard: int = 8
    work: Annotated[Work, FLAT] = field(default_factory=Work)


def write_run(store: Store, num_captions: int, images_per_shard: int) -> None:
    """A run of drawn images, two for each caption."""
    vocabulary = load_vocabulary("voc2007")
    captions = [Caption(*row) for row in world_captions("validation", num_captions)]
    request = SynthesisRequest(
        SynthesisConfig(pipeline="rendered", images_per_caption=2),
        vocabulary,
        filter_captions(captions, vocabulary),
        images_per_shard,
    )
    synthesize(store, request, factory=RenderingSynthesizer)


def copy(source: Store, target: Store) -> None:
    """All objects of one store into another."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: target.write(key, source.read(key)), source.list()))


def progress(store: Store) -> int:
    """Differs where another feature shard, checkpoint or recognizer is there."""
    keys = store.list("features/") + store.list("train/")
    contents = []
    for key in keys:
        with contextlib.suppress(FileNotFoundError):  # a checkpoint goes in the end
            contents += [store.read(key)] if key.endswith(CHECKPOINT) else []
    return hash((*keys, *contents))


def run(options: Options) -> dict[str, Any]:
    """Disturbs and checks; returns what there was and every problem."""
    folder, started = new_folder(options.output), time.monotonic()
    torch.set_num_threads(1)  # as Ray's workers: more of them change the last digits of features
    reference = Store(folder / "reference")
    write_run(reference, options.num_captions, options.images_per_shard)
    with faulty_store(options.server, folder, options.fault_rate, options.seed) as (store, proxy):
        copy(reference, store)
        features = extract_run(reference, BackboneConfig())
        with small_cluster(options.num_nodes, options.cpus_per_node, str(ROOT)) as nodes:
            chaos = Chaos(options, nodes, proxy, KILLS, progress=partial(progress, store))
            for number in itertools.count():
                work = dataclasses.replace(options.work, num_seeds=options.work.num_seeds + number)
                train(reference, features, dataclasses.replace(work, seconds_per_step=0.0))
                command = driver_command(
                    "training_driver.py", store, nodes, proxy, num_workers=options.num_workers,
                    **dataclasses.asdict(work),
                )  # fmt: skip
                if not chaos.play(f"round{number}", command) or not chaos.lacking():
                    break
        # No process of the run is left that could still write.
        found = fetch(store, folder / "found")
    names = [f"{name}-seed{seed}" for seed in range(work.num_seeds) for name in METHODS]
    problems, largest = training_problems(found, reference, names, work.num_epochs)
    return {
        "output": options.output,
        "server": options.server,
        "seconds": round(time.monotonic() - started, 1),
        "rounds": number + 1,
        "recognizers": len(names),
        "epochs": len(names) * work.num_epochs,
        "largest_difference": largest,
        **chaos.summary(),
        "problems": [*chaos.problems(), *problems],
    }


def described(result: dict[str, Any]) -> list[str]:
    """What was trained, as lines to read."""
    return [
        f"{result['recognizers']} recognizers, {result['epochs']} epochs, {result['rounds']} "
        f"rounds, {result['driver_starts']} driver starts, {result['seconds']} s on "
        f"{result['server']}",
        f"{result['largest_difference']:.1e}  largest relative difference of a loss",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs and prints; exits with 1 where there is a problem."""
    result = run(parse(Options, arguments, __doc__))
    finish(result, described(result))


if __name__ == "__main__":
    run_job(main)
