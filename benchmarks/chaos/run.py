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
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.chaos.checks import all_problems, fetch, marker_problems, orphans, plant_orphan
from benchmarks.chaos.cluster import ACTOR, NODE, WORKER, SmallCluster, small_cluster
from benchmarks.chaos.driver import StubSynthesizer, Work
from benchmarks.chaos.proxy import FAULTS, FaultyProxy
from benchmarks.chaos.store import faulty_store
from t2ipal.commands.running import FLAT, parse, run_job
from t2ipal.config import require
from t2ipal.places import LocalPath
from t2ipal.store import Store, committed_shards, read_samples
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.request import ExecutionConfig

ROOT = Path(__file__).resolve().parents[2]
DRIVER = "driver"
KILLS = {ACTOR: 4, WORKER: 2, DRIVER: 2, NODE: 1}
"""How often each kind of process is killed, of nine times."""
LOOKED_AT = 5
"""New shards whose bytes are compared with their markers after each kill."""


@dataclass(frozen=True)
class Options:
    """Kills and faults at random, then checks."""

    output: LocalPath
    """New folder for the undisturbed run, the logs and the summary."""
    server: Literal["moto", "swift", "ceph", "folder"] = "swift"
    """Where the disturbed run goes: an S3 server that is started here, or a local folder, before
    which there is no proxy, so that there are kills alone."""
    min_kills: int = 30
    """Processes and nodes to kill at least; killing ends with enough kills and faults."""
    min_faults: int = 1000
    """Faults that the proxy is to make before the run may end."""
    fault_rate: float = 0.12
    """Share of the store's requests that meet a fault."""
    seconds_between_kills: float = 4.0
    """On average."""
    max_seconds: float = 1800.0
    """After this the run is given up."""
    num_drivers: int = 2
    """Drivers of the same output at once."""
    workers_per_driver: int = 2
    num_nodes: int = 3
    """Nodes with CPUs; the head has none and is never killed."""
    cpus_per_node: int = 2
    """Logical ones."""
    seconds_per_image: float = 0.02
    """For which the stub generator sleeps."""
    seed: int = 0
    """Of the order of kills and faults."""
    work: Annotated[Work, FLAT] = field(default_factory=Work)


class Driver:
    """One driver that is started again until it exits with 0."""

    def __init__(self, command: Sequence[str], log_prefix: Path):
        self.command = command
        self.log_prefix = log_prefix
        self.num_starts = 0
        self.gave_up: list[str] = []
        """The last line of every time that it ended without being killed, and not well."""
        self._start()

    def finished(self) -> bool:
        """Whether it exited with 0; starts it again where it exited otherwise."""
        code = self.process.poll()
        if code is None or code == 0:
            return code == 0
        if not self.killed:
            lines = self.log.read_text(errors="replace").splitlines()
            self.gave_up.append(lines[-1] if lines else f"exit code {code}")
        self._start()
        return False

    def kill(self) -> bool:
        """Kills it, if it is at work."""
        if self.process.poll() is not None or "connected" not in self.log.read_text():
            return False
        self.killed = True
        self.process.kill()
        return self.process.wait() != 0

    def stop(self) -> None:
        """Kills it for good."""
        self.process.kill()
        self.process.wait()

    def _start(self) -> None:
        self.num_starts += 1
        self.killed = False
        self.log = Path(f"{self.log_prefix}-start{self.num_starts}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)


class Chaos:
    """Plays rounds of the run and kills meanwhile."""

    def __init__(
        self, options: Options, nodes: SmallCluster, store: Store, proxy: FaultyProxy | None
    ):
        self.options = options
        self.nodes = nodes
        self.store = store  # as it is; the drivers see it through the proxy
        self.proxy = proxy
        self.kills: Counter[str] = Counter()
        self.orphans_seen: set[str] = set()
        self.num_starts = 0
        self.gave_up: list[str] = []
        self.problems: list[str] = []
        self.end = time.monotonic() + options.max_seconds
        self._rng = random.Random(options.seed)
        self._kinds: list[str] = []
        self._looked_at: set[str] = set()

    def lacking(self) -> list[str]:
        """What there was too little of, kills or faults."""
        counts = {"kills": (self.kills.total(), self.options.min_kills)}
        if self.proxy:
            counts["faults"] = self.proxy.counts.total(), self.options.min_faults
        return [f"only {n} {name} of {least}" for name, (n, least) in counts.items() if n < least]

    def play(self, name: str, work: Work) -> bool:
        """One round: all drivers make the same request; False where the time ran out."""
        command = self._command(work)
        prefix = Path(self.options.output) / name
        drivers = [
            Driver(command, Path(f"{prefix}-driver{n}")) for n in range(self.options.num_drivers)
        ]
        try:
            next_kill = self._next_kill()
            while not all([driver.finished() for driver in drivers]):
                if time.monotonic() > self.end:
                    return False
                if time.monotonic() > next_kill and self.lacking() and self._kill(drivers):
                    self._look()
                    next_kill = self._next_kill()
                time.sleep(0.2)
            return True
        finally:
            for driver in drivers:
                driver.stop()
                self.num_starts += driver.num_starts
                self.gave_up += driver.gave_up

    def _command(self, work: Work) -> list[str]:
        values = {
            "output": self.store.uri,
            "address": self.nodes.address,
            "num_workers": self.options.workers_per_driver,
            "seconds_per_image": self.options.seconds_per_image,
            **dataclasses.asdict(work),
        }
        if self.proxy:
            values["endpoint_url"] = self.proxy.url
        flags = [[f"--{name.replace('_', '-')}", str(value)] for name, value in values.items()]
        script = str(ROOT / "benchmarks/chaos/driver.py")
        return [sys.executable, script, *itertools.chain.from_iterable(flags)]

    def _next_kill(self) -> float:
        return time.monotonic() + self._rng.uniform(0.5, 1.5) * self.options.seconds_between_kills

    def _kill(self, drivers: Sequence[Driver]) -> bool:
        """Kills one of the kind whose turn it is, or of the next kind that has any."""
        if not self._kinds:
            self._kinds = [kind for kind, times in KILLS.items() for _ in range(times)]
            self._rng.shuffle(self._kinds)
        for position, kind in enumerate(self._kinds):
            if kind == DRIVER:
                killed = self._rng.choice(drivers).kill()
            else:
                killed = self.nodes.kill(kind, self._rng)
            if killed:
                self.kills[kind] += 1
                del self._kinds[position]
                return True
        return False

    def _look(self) -> None:
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
    folder, started = Path(options.output), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    require(not any(folder.iterdir()), f"output must be a new folder, {folder} is not empty.")
    reference = Store(folder / "reference")
    factory = partial(StubSynthesizer, failing=options.work.failing)
    again = ExecutionConfig(max_failed_fraction=1.0, retry_failed=True)
    with faulty_store(options.server, folder, options.fault_rate, options.seed) as (store, proxy):
        with small_cluster(options.num_nodes, options.cpus_per_node, str(ROOT)) as nodes:
            chaos = Chaos(options, nodes, store, proxy)
            for number in itertools.count():
                num_images = options.work.images_per_caption + number
                work = dataclasses.replace(options.work, images_per_caption=num_images)
                request = work.request()
                synthesize(reference, request, again, factory=factory)
                in_time = chaos.play(f"round{number}", work)
                _say(f"round {number}", chaos)
                if not in_time or not chaos.lacking():
                    break
            # What failed in the last round is made again.
            summary = synthesize(reference, request, again, factory=factory)
            in_time = in_time and chaos.play("last", work)
        # No process of the run is left that could still write.
        left = orphans(store.list())
        problems = [*chaos.problems, *chaos.lacking()]
        problems += [f"a driver gave up: {reason}" for reason in chaos.gave_up]
        if not in_time:
            problems.append(f"ended before all was made: {options.max_seconds:g} s were over")
        found = fetch(store, folder / "found")
    if found.exists("images/00000.json"):
        plant_orphan(found)
    samples = [(c.caption_id, k) for c in request.captions.kept for k in range(num_images)]
    problems += all_problems(found, reference, samples)
    faults = proxy.counts if proxy else Counter()
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
        "kills": {kind: chaos.kills[kind] for kind in KILLS},
        "requests": proxy.num_requests if proxy else 0,
        "faults": {kind: faults[kind] for kind in FAULTS},
        "driver_starts": chaos.num_starts,
        "drivers_gave_up": len(chaos.gave_up),
        "orphans_seen": len(chaos.orphans_seen),
        "orphans_left": len(left),
        "problems": problems,
    }


def _say(what: str, chaos: Chaos) -> None:
    faults = chaos.proxy.counts.total() if chaos.proxy else 0
    counts = f"{chaos.kills.total()} kills, {faults} faults"
    print(f"== {what}: {counts}, {chaos.num_starts} driver starts", file=sys.stderr, flush=True)


def table(result: dict[str, Any]) -> str:
    """The result as lines to read."""
    kills, faults = result["kills"], result["faults"]
    share = sum(faults.values()) / max(1, result["requests"])
    lines = [
        f"{result['samples']} samples in {result['shards']} shards, {result['rounds']} rounds, "
        f"{result['driver_starts']} driver starts, {result['seconds']} s on {result['server']}",
        f"{result['samples_made_again']:6}  samples failed and were made again",
        *(f"{count:6}  killed: {kind}" for kind, count in kills.items()),
        f"{sum(kills.values()):6}  kills",
        *(f"{count:6}  {kind}" for kind, count in faults.items()),
        f"{sum(faults.values()):6}  faults in {result['requests']} requests ({share:.1%})",
        f"{result['orphans_seen']:6}  objects seen without a marker meanwhile",
        f"{result['orphans_left']:6}  of these left",
        *(f"PROBLEM {problem}" for problem in result["problems"]),
    ]
    return "\n".join([*lines, "FAILED" if result["problems"] else "all holds"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs and prints; exits with 1 where there is a problem."""
    result = run(parse(Options, arguments, __doc__))
    text = json.dumps(result)
    (Path(result["output"]) / "chaos.json").write_text(text + "\n")
    print(table(result))
    print(text)
    if result["problems"]:
        sys.exit(1)


if __name__ == "__main__":
    run_job(main)
