"""What every chaos run shares: drivers, started again until they are done, and kills meanwhile."""

import itertools
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.chaos.cluster import SmallCluster
from benchmarks.chaos.proxy import FAULTS, FaultyProxy
from t2ipal.config import require
from t2ipal.places import LocalPath
from t2ipal.store import Store

ROOT = Path(__file__).resolve().parents[2]
DRIVER = "driver"
LOOK_S = 0.2


@dataclass(frozen=True)
class Disturbance:
    """How many kills and faults, and where."""

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
    num_nodes: int = 3
    """Nodes with CPUs; the head has none and is never killed."""
    cpus_per_node: int = 2
    """Logical ones."""
    seed: int = 0
    """Of the order of kills and faults."""


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
    """Plays rounds of a run and kills meanwhile."""

    def __init__(
        self,
        options: Disturbance,
        nodes: SmallCluster,
        proxy: FaultyProxy | None,
        kinds: Mapping[str, int],
        after_kill: Callable[[], None] = lambda: None,
        progress: Callable[[], Any] = time.monotonic,
    ):
        """Starts nothing yet.

        Args:
            options: what is wanted.
            nodes: of which any may be killed.
            proxy: whose faults count.
            kinds: how often each kind of process is killed, in a series of so many kills.
            after_kill: looks at what is left then.
            progress: of the run, as a value that changes with it; without any there is no kill, so
                that a busy machine, too, comes to an end.
        """
        self.options = options
        self.nodes = nodes
        self.proxy = proxy
        self.kinds, self.after_kill, self.progress = kinds, after_kill, progress
        self.kills: Counter[str] = Counter()
        self.num_starts = 0
        self.gave_up: list[str] = []
        self.in_time = True
        self.end = time.monotonic() + options.max_seconds
        self._rng = random.Random(options.seed)
        self._left: list[str] = []

    def lacking(self) -> list[str]:
        """What there was too little of, kills or faults."""
        counts = {"kills": (self.kills.total(), self.options.min_kills)}
        if self.proxy:
            counts["faults"] = self.proxy.counts.total(), self.options.min_faults
        return [f"only {n} {name} of {least}" for name, (n, least) in counts.items() if n < least]

    def problems(self) -> list[str]:
        """What was not as it should be of drivers, kills and faults."""
        late = f"ended before all was made: {self.options.max_seconds:g} s were over"
        gave_up = [f"a driver gave up: {reason}" for reason in self.gave_up]
        return [*self.lacking(), *gave_up, *([] if self.in_time else [late])]

    def play(self, name: str, command: Sequence[str]) -> bool:
        """One round: all drivers do the same; False where the time ran out."""
        prefix = Path(self.options.output) / name
        drivers = [
            Driver(command, Path(f"{prefix}-driver{n}")) for n in range(self.options.num_drivers)
        ]
        try:
            next_kill, before = None, self.progress()
            while not all([driver.finished() for driver in drivers]):
                if time.monotonic() > self.end:
                    self.in_time = False
                    break
                if next_kill is None and self.progress() != before:
                    wait = self._rng.uniform(0.5, 1.5) * self.options.seconds_between_kills
                    next_kill = time.monotonic() + wait
                due = next_kill is not None and time.monotonic() > next_kill
                if due and self.lacking() and self._kill(drivers):
                    self.after_kill()
                    next_kill, before = None, self.progress()
                time.sleep(LOOK_S)
        finally:
            for driver in drivers:
                driver.stop()
                self.num_starts += driver.num_starts
                self.gave_up += driver.gave_up
        counts = f"{self.kills.total()} kills, {self.num_faults} faults"
        print(f"== {name}: {counts}, {self.num_starts} driver starts", file=sys.stderr, flush=True)
        return self.in_time

    @property
    def num_faults(self) -> int:
        """So far."""
        return self.proxy.counts.total() if self.proxy else 0

    def summary(self) -> dict[str, Any]:
        """Kills, faults and drivers, as plain values."""
        faults = self.proxy.counts if self.proxy else Counter()
        return {
            "kills": {kind: self.kills[kind] for kind in self.kinds},
            "requests": self.proxy.num_requests if self.proxy else 0,
            "faults": {kind: faults[kind] for kind in FAULTS},
            "driver_starts": self.num_starts,
            "drivers_gave_up": len(self.gave_up),
        }

    def _kill(self, drivers: Sequence[Driver]) -> bool:
        """Kills one of the kind whose turn it is, or of the next kind that has any."""
        if not self._left:
            self._left = [kind for kind, times in self.kinds.items() for _ in range(times)]
            self._rng.shuffle(self._left)
        for position, kind in enumerate(self._left):
            if kind == DRIVER:
                killed = self._rng.choice(drivers).kill()
            else:
                killed = self.nodes.kill(kind, self._rng)
            if killed:
                self.kills[kind] += 1
                del self._left[position]
                return True
        return False


def driver_command(
    script: str, store: Store, nodes: SmallCluster, proxy: FaultyProxy | None, **values: Any
) -> list[str]:
    """What starts a driver of this folder.

    Args:
        script: its file.
        store: of the run, which the driver sees through the proxy.
        nodes: where it works.
        proxy: before the store.
        values: its other options; of a tuple, each value is a word.
    """
    values = {"output": store.uri, "address": nodes.address, **values}
    if proxy:
        values["endpoint_url"] = proxy.url
    flags = [
        [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else [value])]
        for name, value in values.items()
    ]
    path = str(ROOT / "benchmarks/chaos" / script)
    return [sys.executable, path, *itertools.chain.from_iterable(flags)]


def new_folder(output: str) -> Path:
    """The folder of a chaos run, made.

    Raises:
        ValueError: there is something in it.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    require(not any(folder.iterdir()), f"output must be a new folder, {folder} is not empty.")
    return folder


def finish(result: dict[str, Any], told: Sequence[str]) -> None:
    """Keeps and prints the result; exits with 1 where there is a problem.

    Args:
        result: with `output`, `problems`, and what `Chaos.summary` gives.
        told: first lines to read.
    """
    kills, faults = result["kills"], result["faults"]
    share = sum(faults.values()) / max(1, result["requests"])
    lines = [
        *told,
        *(f"{count:6}  killed: {kind}" for kind, count in kills.items()),
        f"{sum(kills.values()):6}  kills",
        *(f"{count:6}  {kind}" for kind, count in faults.items()),
        f"{sum(faults.values()):6}  faults in {result['requests']} requests ({share:.1%})",
        *(f"PROBLEM {problem}" for problem in result["problems"]),
    ]
    text = json.dumps(result)
    (Path(result["output"]) / "chaos.json").write_text(text + "\n")
    print("\n".join([*lines, "FAILED" if result["problems"] else "all holds"]))
    print(text)
    if result["problems"]:
        sys.exit(1)
