"""Training and evaluation on features that do not fit into memory: is memory flat, and speed held?

    python benchmarks/training_scale.py --folder /tmp/scale

Makes up features of true size on disk (49 locations of 512 numbers, 6 images a caption), then
trains and measures in processes of their own, with the text tower of RN101 and random weights:

    mapped     20,000, 60,000 and 120,000 images, read batch by batch from their files
    held       20,000 images in memory, in turns with the same ones mapped
    evaluate   107,859 images (the size of NUS-WIDE's test set), scored in a stream

A process's own memory is what the system cannot drop: mapped pages of files do not count. Exits 1
where own memory of training differs by more than 10 % over the sizes or passes 1.5 GB, where
seconds a caption differ by more than 20 %, where mapped takes more than 1.2 times held, where their
losses differ at all, or where evaluation passes 2 GB. The last line of the output is JSON.
"""

import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks.true_size_clip import write_random_clip
from t2ipal.captions import load_vocabulary
from t2ipal.commands.running import finish, parse, run_job
from t2ipal.evaluation.evaluate import predict
from t2ipal.features.backbone import load_text_tower
from t2ipal.features.config import BackboneConfig, FeatureAccess
from t2ipal.features.extraction import FeatureTask
from t2ipal.features.reading import read_training_features
from t2ipal.features.table import GLOBAL, LENGTHS, LOCAL, POOLED
from t2ipal.places import LocalPath
from t2ipal.store import (
    Caption,
    RunSettings,
    RunTotals,
    Sample,
    Section,
    Store,
    commit_shard,
    open_run,
    read_run,
    write_arrays,
    write_manifest,
    write_section,
    write_section_captions,
)
from t2ipal.training.loop import fit
from t2ipal.training.recipes import recipe

WIDTH, LOCATIONS, PER_CAPTION, PER_SHARD = 512, 49, 6, 1020
CAPTIONS_PER_SHARD, POSITIONS = 4096, 14
NUM_EVALUATED = 107_859
"""Test images of NUS-WIDE."""
FEATURES = "features/0123456789abcdef"
MODEL = "RN101"
MIB = 2**20


@dataclass(frozen=True)
class Options:
    """Sizes, and how often."""

    folder: LocalPath
    """Where the features lie: 7 GB for the sizes as they are. What is there is taken again."""
    num_images: tuple[int, ...] = (20_000, 60_000, 120_000)
    """Sizes of the runs."""
    rounds: int = 2
    """How often held and mapped take turns."""
    batch_size: int = 512
    num_threads: int = 1
    """Threads of torch."""
    part: Literal["all", "train", "evaluate"] = "all"
    """`train` and `evaluate` are what the processes do that this one starts."""
    size: int = 0
    """Images, for such a process."""
    memory_gb: float = 0.0
    """Budget of features in memory, for such a process."""


def main() -> dict[str, Any]:
    """Runs all, or what one process of it does."""
    options = parse(Options, None, __doc__)
    torch.set_num_threads(options.num_threads)
    if options.part == "train":
        return finish(train(options))
    if options.part == "evaluate":
        return finish(evaluate(options))
    prepare(options)
    trained = {size: in_process(options, "train", size) for size in options.num_images}
    smallest = min(options.num_images)
    pairs = []
    for _ in range(options.rounds):
        held = in_process(options, "train", smallest, memory_gb=64.0)
        pairs.append((held, in_process(options, "train", smallest)))
    measured = in_process(options, "evaluate", max(options.num_images))
    result = summary(trained, pairs, measured)
    finish(result)
    if result["failed"]:
        sys.exit(1)
    return result


def summary(
    trained: dict[int, dict[str, Any]],
    pairs: list[tuple[dict[str, Any], dict[str, Any]]],
    measured: dict[str, Any],
) -> dict[str, Any]:
    """Prints what was measured; the numbers, and which demands they fail."""
    print(f"{'images':>9} {'own MiB':>8} {'in all':>8} {'s/1000 captions':>16}")
    for size, row in trained.items():
        print(
            f"{size:9,} {row['own_mib']:8,.0f} {row['peak_mib']:8,.0f} "
            f"{1000 * row['seconds_per_caption']:16.2f}"
        )
    own = [row["own_mib"] for row in trained.values()]
    rate = [row["seconds_per_caption"] for row in trained.values()]
    ratios = [new["seconds_per_caption"] / old["seconds_per_caption"] for old, new in pairs]
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"mapped over held, {len(pairs)} rounds: {shown}")
    print(f"held: own {pairs[0][0]['own_mib']:,.0f} MiB")
    print(
        f"evaluation of {measured['num_images']:,} images: own {measured['own_mib']:,.0f} MiB, "
        f"{measured['images_per_second']:,.0f} images/s"
    )
    result = {
        "own_mib": own,
        "own_spread": max(own) / min(own),
        "seconds_per_caption": rate,
        "speed_spread": max(rate) / min(rate),
        "mapped_over_held": statistics.median(ratios),
        "mapped_over_held_rounds": ratios,
        "held_own_mib": pairs[0][0]["own_mib"],
        "evaluation_own_mib": measured["own_mib"],
        "evaluation_images_per_second": measured["images_per_second"],
    }
    checks = {
        "own memory within 10 %": result["own_spread"] <= 1.10,
        "own memory under 1.5 GB": max(own) * MIB <= 1.5e9,
        "seconds a caption within 20 %": result["speed_spread"] <= 1.20,
        "mapped at most 1.2 times held": result["mapped_over_held"] <= 1.2,
        "losses the same to the bit": all(old["loss"] == new["loss"] for old, new in pairs),
        "evaluation under 2 GB": measured["own_mib"] * MIB <= 2e9,
    }
    return {**result, "failed": [name for name, holds in checks.items() if not holds]}


def in_process(options: Options, part: str, size: int, memory_gb: float = 0.0) -> dict[str, Any]:
    """What a process of its own measures."""
    changed = dataclasses.replace(options, part=part, size=size, memory_gb=memory_gb)
    words = [
        f"--{field.name.replace('_', '-')}={getattr(changed, field.name)}"
        for field in dataclasses.fields(Options)
        if field.name not in ("num_images",)
    ]
    done = subprocess.run(
        [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def train(options: Options) -> dict[str, Any]:
    """Two epochs over a run, of which the second is timed."""
    names = load_vocabulary("coco2014")
    start = recipe("t2ipal", "coco2014", names.class_names, names.prompt_names)
    training = dataclasses.replace(start.training, num_epochs=2, batch_size=options.batch_size)
    store = Store(f"{options.folder}/{options.size}")
    with own_memory() as own:
        method = start.method.build(load_text_tower(clip(options)), 0)
        access = FeatureAccess(feature_memory_gb=options.memory_gb)
        data = read_training_features(store, FEATURES, access=access)
        ends: list[float] = []
        result = fit(method, data, training, on_epoch=lambda _: ends.append(time.monotonic()))
    return {
        "own_mib": own.mib,
        "peak_mib": peak_mib(),
        "seconds_per_caption": (ends[1] - ends[0]) / len(data.texts),
        "loss": result.history[-1].loss,
    }


def evaluate(options: Options) -> dict[str, Any]:
    """Scores of many images, of which nothing else is kept."""
    names = load_vocabulary("coco2014")
    start = recipe("t2ipal", "coco2014", names.class_names, names.prompt_names)
    store, started = Store(f"{options.folder}/{options.size}"), time.monotonic()
    with own_memory() as own:
        recognizer = start.method.build(load_text_tower(clip(options)), 0).export()
        access = FeatureAccess(feature_memory_gb=0.0)
        images = read_training_features(store, FEATURES, access=access).images
        assert images is not None
        some = images.subset(torch.arange(min(NUM_EVALUATED, len(images))))
        started = time.monotonic()
        (scores,) = predict([recognizer], some)
        seconds = time.monotonic() - started
    return {
        "num_images": len(scores),
        "own_mib": own.mib,
        "peak_mib": peak_mib(),
        "images_per_second": len(scores) / seconds,
    }


def clip(options: Options) -> BackboneConfig:
    """The CLIP with random weights."""
    return BackboneConfig(model=f"{options.folder}/clip")


class OwnMemory:
    """The most that the process held of what the system cannot drop."""

    mib = 0.0

    def look(self) -> None:
        """Looks once."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                self.mib = max(self.mib, int(line.split()[1]) / 1024)


@contextmanager
def own_memory() -> Iterator[OwnMemory]:
    """Watches inside the block."""
    own, ended = OwnMemory(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            own.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield own
    finally:
        ended.set()
        thread.join()


def peak_mib() -> float:
    """Of this process, mapped pages included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def prepare(options: Options) -> None:
    """Writes the CLIP and the runs that are not there; the smaller runs share the features."""
    folder, largest = Path(options.folder), max(options.num_images)
    if not (folder / "clip" / "open_clip_config.json").is_file():
        write_random_clip(folder / "clip", MODEL)
    for size in sorted(options.num_images, reverse=True):
        if not (folder / f"{size}" / "manifest.json").is_file():
            write_run(folder, size, largest)


def write_run(folder: Path, num_images: int, largest: int) -> None:
    """A finished run of so many images, whose own pixels are made up too."""
    store, names = Store(folder / f"{num_images}"), load_vocabulary("coco2014")
    num_captions, rng = num_images // PER_CAPTION, np.random.default_rng(0)
    synthesis = {"images_per_caption": PER_CAPTION}
    settings = RunSettings(
        synthesis={}, vocabulary="coco2014", class_names=names.class_names,
        prompt_names=names.prompt_names, images_per_shard=PER_SHARD,
    )  # fmt: skip
    open_run(store, settings)
    captions = [
        Caption(f"c{at:07d}", f"a made-up caption {at}", (at % 80, at % 79))
        for at in range(num_captions)
    ]
    key = write_section_captions(store, 0, captions)
    num_shards = -(-num_captions * PER_CAPTION // PER_SHARD)
    write_section(store, 0, Section(0, num_shards, 0, num_captions, 0, PER_CAPTION, key))
    is_largest = num_images == largest
    if not is_largest:
        (folder / f"{num_images}" / "features").symlink_to(f"../{largest}/features")
    per_shard = PER_SHARD // PER_CAPTION
    for number in range(num_shards):
        some = captions[number * per_shard : (number + 1) * per_shard]
        rows = [
            Sample(
                f"{number:05d}-{at:05d}", caption.caption_id, "", caption.labels, at % PER_CAPTION,
                0, 0, "ok", "", "", 224, 224,
            )
            for at, caption in enumerate(c for c in some for _ in range(PER_CAPTION))
        ]  # fmt: skip
        shard = f"{number:05d}"
        commit_shard(store, shard, {}, rows, [b"no picture"] * len(rows))
        target = FeatureTask("images", shard).key(FEATURES)
        if not store.exists(target):
            made = {
                GLOBAL: unit(rng, len(rows)), LOCAL: unit(rng, len(rows), LOCATIONS),
                POOLED: unit(rng, len(rows)),
            }  # fmt: skip
            write_arrays(store, target, made, [row.key for row in rows])
    for first in range(0, num_captions, CAPTIONS_PER_SHARD):
        last = min(first + CAPTIONS_PER_SHARD, num_captions)
        lengths = rng.integers(POSITIONS - 6, POSITIONS + 6, last - first).astype(np.int32)
        made = {
            GLOBAL: unit(rng, last - first), LOCAL: unit(rng, int(lengths.sum())), LENGTHS: lengths
        }  # fmt: skip
        task = FeatureTask("texts", f"{first:08d}-{last:08d}")
        ids = [caption.caption_id for caption in captions[first:last]]
        if not store.exists(task.key(FEATURES)):
            write_arrays(store, task.key(FEATURES), made, ids)
    totals = {**vars(settings), "synthesis": synthesis}
    write_manifest(store, RunTotals(**totals, num_captions=num_captions, captions="made up"))
    assert not read_run(store).num_missing


def unit(rng: np.random.Generator, *places: int) -> np.ndarray:
    """Random directions, as halves."""
    values = rng.standard_normal((*places, WIDTH), dtype=np.float32)
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    return values.astype(np.float16)


if __name__ == "__main__":
    run_job(main)
