"""A million captions through the real synthesis: how fast, in how many objects, in how much memory.

    python benchmarks/million_captions.py --output runs/million

A stub draws the same tiny picture for every caption, so that what is left is plans, Ray, JPEG, tar,
sidecar and markers. The resident memory of the driver and of the workers is sampled all the time;
flat means that its least values grow by less than `--flat-mib` for each 100,000 images in the
second half. Needs about 4 GB of disk for the million, gone at the end. Writes memory.png and
million.json into the output folder, prints a table and, last, one JSON line.
"""

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil

from t2ipal.captions import Caption, FilterResult, Vocabulary, load_vocabulary
from t2ipal.commands.running import parse, run_job
from t2ipal.config import require
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.engine.pool import on_ray
from t2ipal.engine.session import connect
from t2ipal.places import LocalPath
from t2ipal.report.sheets import BLUE, ORANGE, Panel, line_chart
from t2ipal.store import Store
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.request import ExecutionConfig, SynthesisRequest

MIB = 2**20
ROWS = 100_000
"""Images to which the growth of memory refers."""
WINDOWS = 10
CHART_POINTS = 60
PLACES = ("on a beach", "in a street", "beside a window", "under a tree", "in a kitchen")


@dataclass(frozen=True)
class Options:
    """How much is made, and when its memory counts as flat."""

    output: LocalPath = "runs/million"
    """Folder of the chart and the numbers."""
    num_captions: int = 1_000_000
    """Captions, one image each."""
    images_per_shard: int = 8192
    """Images of one shard. A shard is three objects, a run five more: for a million images 8,192
    make an object of every 2,700, the jobs' default of 128 of every 43. A worker holds two shards,
    one twice while its tar is made, and a crash costs it both; 8,192 JPEGs of 512 px are 1 GB."""
    num_workers: int = 2
    """Ray workers, one core each."""
    batch_size: int = 64
    """Images of a micro-batch."""
    image_size_px: int = 32
    """Side of the images in pixels."""
    sample_seconds: float = 1.0
    """Seconds between two looks at the memory."""
    flat_mib: float = 2.0
    """Growth in MiB for each 100,000 images, of the driver and of a worker, up to which memory is
    called flat: 20 MiB for the million."""


class TinyPicture:
    """Draws the same small picture for all; leaves its process id in a folder."""

    def __init__(self, config: SynthesisConfig, folder: Path):
        side = config.image_size_px or 32
        steps = np.linspace(0, 255, side, dtype=np.uint8)
        self.image = np.stack(np.broadcast_arrays(steps[:, None], steps, steps[::-1]), axis=-1)
        (folder / str(os.getpid())).touch()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """As `Synthesizer`."""
        count = len(batch["k"])
        return {
            **batch,
            "image": np.broadcast_to(self.image, (count, *self.image.shape)),
            "seed": np.arange(count, dtype=np.uint64),
            "status": np.full(count, "ok"),
            "reason": np.full(count, ""),
        }


def write_captions(count: int, vocabulary: Vocabulary) -> list[Caption]:
    """So many different ones, with the two classes that each names."""
    names, found = vocabulary.prompt_names, []
    for n in range(count):
        first, second = n % len(names), n // len(names) % len(names)
        place = PLACES[n % len(PLACES)]
        text = f"A {names[first]} and a {names[second]} {place}, in photograph {n} of many."
        found.append(Caption(f"caption-{n:08d}", text, tuple(sorted({first, second}))))
    return found


@dataclass(frozen=True)
class Sample:
    """Memory and processor time at one moment."""

    at: float
    """Seconds since 1970."""
    driver_mib: float
    workers_mib: dict[str, float]
    """By process id."""
    workers_cpu_s: float
    """Of all workers since they started."""


class Watch:
    """Samples the driver and the workers from a thread of its own."""

    def __init__(self, folder: Path, seconds: float):
        self.folder, self.seconds = folder, seconds
        self.samples: list[Sample] = []
        self._end = threading.Event()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Samples inside the block."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _watch(self) -> None:
        while not self._end.wait(self.seconds):
            self.samples.append(take_sample(self.folder))


def take_sample(folder: Path) -> Sample:
    """Looks at this process and at those that left their ids in the folder."""
    memory, cpu = {}, 0.0
    for path in folder.iterdir():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(path.name))
            times = process.cpu_times()
            memory[path.name] = own_mib(process)
            cpu += times.user + times.system
    return Sample(time.time(), own_mib(psutil.Process()), memory, cpu)


def own_mib(process: psutil.Process) -> float:
    """Resident memory without shared pages.

    A worker that reads a plan from Ray's object store maps its pages: they are the store's, whose
    size is fixed, but would count as the worker's until it has seen the whole store.
    """
    memory = process.memory_info()
    return (memory.rss - getattr(memory, "shared", 0)) / MIB


def rows_at(times: Sequence[float], markers: Mapping[float, int], start: float) -> np.ndarray:
    """Images that were made at each time, between two markers in proportion to the time.

    Args:
        times: seconds since 1970.
        markers: when each shard was finished, and its number of images.
        start: when the first worker was there.
    """
    ends = sorted(markers)
    made = np.cumsum([0, *(markers[end] for end in ends)])
    return np.interp(times, [start, *ends], made)


def slope(rows: np.ndarray, mib: np.ndarray, total: int) -> float | None:
    """Growth in MiB for each 100,000 images over the second half; None with too few samples.

    That of the least values in each of ten windows: a worker's memory rises with every shard that
    it collects and falls when the shard is stored, which is no growth.
    """
    edges = np.linspace(total / 2, total, WINDOWS + 1)
    known = np.isfinite(mib)  # not where a worker died meanwhile
    inside = [known & (rows >= start) & (rows < end) for start, end in pairwise(edges)]
    least = [np.nanargmin(np.where(window, mib, np.nan)) for window in inside if window.any()]
    if len(least) < WINDOWS / 2:
        return None
    return float(np.polyfit(rows[least] / ROWS, mib[least], 1)[0])


def run(options: Options) -> dict[str, Any]:
    """Makes the images, watches the memory, draws the chart; returns the numbers."""
    for name in ("num_captions", "images_per_shard", "num_workers", "sample_seconds"):
        require(getattr(options, name) > 0, f"{name} must be > 0, got {getattr(options, name)}.")
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as folder, connect(least_cpus=2):
        ids, store = Path(folder) / "workers", Store(f"{folder}/run")
        ids.mkdir()
        empty = take_sample(ids).driver_mib
        vocabulary = load_vocabulary("voc2007")
        captions = write_captions(options.num_captions, vocabulary)
        config = SynthesisConfig(
            pipeline="stub", batch_size=options.batch_size, image_size_px=options.image_size_px
        )
        filtered = FilterResult(captions, [])
        request = SynthesisRequest(config, vocabulary, filtered, options.images_per_shard)
        del captions, filtered
        with_captions = take_sample(ids).driver_mib
        watch, started = Watch(ids, options.sample_seconds), time.time()
        where = ExecutionConfig(options.num_workers, options.num_workers)
        with watch.watching():
            made = synthesize(
                store,
                request,
                where,
                workers=on_ray,
                factory=partial(TinyPicture, folder=ids),
                progress=True,
            )
        seconds = time.time() - started
        first = min(path.stat().st_mtime for path in ids.iterdir())
        markers = {
            at: json.loads(store.read(key))["num_rows"]
            for key, at in store.times("images/").items()
            if key.endswith(".json")
        }
        num_objects = len(store.list())
    samples = [sample for sample in watch.samples if sample.workers_mib and sample.at >= first]
    rows = rows_at([sample.at for sample in samples], markers, first)
    workers = sorted({pid for sample in samples for pid in sample.workers_mib})
    memory = {"driver": np.array([sample.driver_mib for sample in samples])}
    for number, pid in enumerate(workers, 1):
        memory[f"worker {number}"] = np.array([s.workers_mib.get(pid, np.nan) for s in samples])
    working = max(markers) - first
    slopes = {name: slope(rows, mib, made.num_images) for name, mib in memory.items()}
    line_chart(chart(rows, memory)).save(output / "memory.png")
    result = {
        "options": dataclasses.asdict(options),
        "num_images": made.num_images,
        "seconds": {
            "all": round(seconds, 1), "plans": round(first - started, 1),
            "images": round(working, 1), "manifest": round(started + seconds - max(markers), 1),
        },
        "images_per_second": round(made.num_images / working, 1),
        "worker_cpu_us_an_image": round(
            1e6 * max((s.workers_cpu_s for s in samples), default=0.0) / made.num_images
        ),
        "num_shards": made.num_shards,
        "num_objects": num_objects,
        "images_per_object": round(made.num_images / num_objects, 1),
        "driver_mib": {
            "with Ray and no captions": round(empty), "with the request": round(with_captions),
            "at its peak": round(max((s.driver_mib for s in watch.samples), default=0.0)),
        },
        "growth_mib_per_100k_images": slopes,
        "flat": verdict(slopes, options.flat_mib),
        "samples": {
            "images": [int(row) for row in rows],
            **{name: [round(float(v), 1) for v in mib] for name, mib in memory.items()},
        },
    }  # fmt: skip
    (output / "million.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def verdict(slopes: Mapping[str, float | None], flat_mib: float) -> bool | None:
    """Whether nothing grows; None where that cannot be told."""
    known = [slope for slope in slopes.values() if slope is not None]
    if len(known) < len(slopes):
        return None
    return max(known) <= flat_mib


def chart(rows: np.ndarray, memory: Mapping[str, np.ndarray]) -> Panel:
    """Memory over images, thinned out; all workers have one color."""
    step = max(1, len(rows) // CHART_POINTS)
    lines = []
    for name, mib in memory.items():
        points = zip(rows[::step], mib[::step])
        line = [(x / 1000, y, 0.0) for x, y in points if np.isfinite(y)]
        lines.append((name, BLUE if name == "driver" else ORANGE, line))
    return Panel("own resident memory, MiB", "thousand images", lines)


def markdown(result: Mapping[str, Any]) -> str:
    """The table."""
    seconds, driver = result["seconds"], result["driver_mib"]
    growth, flat = result["growth_mib_per_100k_images"], result["flat"]
    too_few = "cannot be told: too few samples in the second half"
    cells = {
        "images": f"{result['num_images']:,}",
        "images a second": f"{result['images_per_second']:,} "
        f"({result['worker_cpu_us_an_image']} µs of a worker's processor each)",
        "seconds": ", ".join(f"{name} {value:,}" for name, value in seconds.items()),
        "objects": f"{result['num_objects']:,}: {result['images_per_object']:,} images each",
        "driver, MiB": ", ".join(f"{name} {value:,}" for name, value in driver.items()),
        "memory is flat": too_few if flat is None else "yes" if flat else "**no**",
    }
    for name, value in growth.items():
        shown = too_few if value is None else f"{value:+.2f} MiB for each {ROWS:,} images"
        cells[f"growth of {name}"] = shown
    lines = ["| what | measured |", "|---|---|", *(f"| {k} | {v} |" for k, v in cells.items())]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures and prints."""
    options = parse(Options, arguments, __doc__)
    result = run(options)
    print(markdown(result))
    print(json.dumps({name: value for name, value in result.items() if name != "samples"}))
    return result


if __name__ == "__main__":
    run_job(main)
