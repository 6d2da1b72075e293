"""The training step against the usual loop, side by side: same data, weights, seeds and losses.

    python benchmarks/training.py
    python benchmarks/training.py --device cuda --batch-size 512 --rounds 10

A CLIP of true size with random weights (RN50 unless said otherwise). Contestants take turns, step
by step, on the same batches:

    usual      images, captions and prompts of 77 tokens are encoded in every step
    cached     features are read, prompts of 77 tokens are encoded
    truncated  features are read, prompts are cut behind the longest
    ours       features are read, what prompts share is encoded once

Prints medians with their spread, ratios, peak memory of a process of each, ours with 1,000 classes
too, and how our cost grows. Exits 1 where loss curves differ by more than 1e-4 of their values, or
one of `DEMANDS` does not hold. Some 10 minutes with one thread on an idle machine. It was never run
on a GPU. The last line is JSON: `over_usual_loop_80`, `prompts_over_77_tokens` and more.
"""

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor

from benchmarks.true_size_clip import write_random_clip
from t2ipal.captions import load_vocabulary
from t2ipal.commands.running import finish, parse, run_job
from t2ipal.devices import computes_bf16
from t2ipal.features.backbone import Backbone, load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.prompt_tower import PromptLayout, encode_plain, joined
from t2ipal.features.sets import FeatureSet, TrainingFeatures
from t2ipal.features.towers import text_positions
from t2ipal.methods.t2ipal import T2IPAL
from t2ipal.training.loop import TrainingConfig, autocast, fit, make_optimizer
from t2ipal.training.recipes import recipe

CONTESTANTS = ("usual", "cached", "truncated", "ours")
MAX_TOKENS = 77
TOLERANCE = 1e-4
"""Between loss curves, as a share of their values."""
DEMANDS = {"over_usual_loop_80": 25.0, "prompts_over_77_tokens": 16.0}
"""What results must reach."""
MEMORY_CLASSES, MEMORY_MIB = 1000, 2048
"""With so many classes a process may hold no more."""
WORDS = ("old", "red", "small", "wooden", "broken", "green", "plastic", "huge", "striped", "toy",
         "shiny", "wet", "dirty")  # fmt: skip
"""In front of MS-COCO's names they make 1,000 classes and more."""


@dataclass(frozen=True)
class Options:
    """What is compared, and how often."""

    model: str = "RN50"
    """open_clip's name of an architecture; its weights are random."""
    batch_size: int = 32
    """Captions and images of a step."""
    rounds: int = 3
    """Steps of each contestant, in turns."""
    device: str = "cpu"
    """Any torch device."""
    num_threads: int = 1
    """Threads of torch on a CPU."""
    memory: bool = True
    """Also measure the peak memory of a process of each."""
    growth: bool = True
    """Also measure how the cost grows with classes, batch and captions."""
    only: str | None = None
    """One contestant alone, for one step: prints its peak memory in MiB."""
    num_classes: int = 80
    """With `only`: how many."""
    folder: str | None = None
    """Where the CLIP's weights lie, or are written; None: a temporary folder."""


class Reading:
    """A frozen CLIP that encodes prompts as a contestant does."""

    def __init__(self, backbone: Backbone, contestant: str):
        self.backbone, self.contestant = backbone, contestant

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)

    def encode_token_embeddings(
        self, embeddings: Tensor, end: Tensor, shared: Tensor, layout: PromptLayout | None
    ) -> Tensor:
        """As the backbone's; whole prompts but for `ours`, at all 77 positions but `truncated`."""
        if self.contestant == "ours":
            return self.backbone.encode_token_embeddings(embeddings, end, shared, layout)
        whole = joined(shared, embeddings)
        if self.contestant != "truncated":
            missing = MAX_TOKENS - whole.shape[-2]
            whole = torch.nn.functional.pad(whole, (0, 0, 0, missing))
        at_once = encode_plain(self.backbone.model, whole, end, kept_tokens=whole.numel())
        return self.backbone._project(at_once)


@dataclass
class Runner:
    """One contestant with its own copy of what is learned."""

    contestant: str
    method: T2IPAL
    optimizer: torch.optim.Optimizer
    losses: list[float] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)


@dataclass(frozen=True)
class Batch:
    """Captions and images of a step, raw and as features."""

    captions: list[str]
    pixels: Tensor
    texts: FeatureSet
    """At all 77 positions."""
    cut: FeatureSet
    """As they are stored: without positions behind the longest caption's end."""
    images: FeatureSet

    def data(self) -> TrainingFeatures:
        """To train on, each image with its caption."""
        rows = torch.arange(len(self.images)).unsqueeze(1)
        return TrainingFeatures(self.cut.to("cpu"), self.images.to("cpu"), rows)


def class_names(count: int) -> tuple[str, ...]:
    """VOC2007's 20, MS-COCO's 80, or names of two words and more."""
    if count == 20:
        return load_vocabulary("voc2007").prompt_names
    names = load_vocabulary("coco2014").prompt_names
    return (*names, *(f"{word} {name}" for word in WORDS for name in names))[:count]


def make_batch(
    backbone: Backbone, names: Sequence[str], size: int, seed: int, repeated: int = 1
) -> Batch:
    """Captions of two classes each, and noise in place of their images.

    `repeated` times the same rows: what they hold does not matter for the time.
    """
    rng = np.random.default_rng(seed)
    labels = torch.zeros(size, len(names))
    captions = []
    for row in range(size):
        first, second = rng.choice(len(names), 2, replace=False)
        labels[row, [first, second]] = 1
        captions.append(f"A photo of a {names[first]} next to a {names[second]} in the street.")
    pixels = torch.from_numpy(rng.integers(0, 256, (size, 224, 224, 3), dtype=np.uint8))
    texts, images = encode(backbone, captions, pixels, labels.to(backbone.device))
    rows = torch.arange(size * repeated) % size
    texts, images = texts.rows(rows), images.rows(rows)
    assert texts.mask is not None
    length = int(texts.mask.sum(dim=1).max())
    cut = dataclasses.replace(
        texts, local_features=texts.local_features[:, :length], mask=texts.mask[:, :length]
    )
    return Batch(captions, pixels, texts, cut, images)


@torch.no_grad()
def encode(
    backbone: Backbone, captions: list[str], pixels: Tensor, labels: Tensor
) -> tuple[FeatureSet, FeatureSet]:
    """Features of captions at all 77 positions, and of images, as the usual loop takes them."""
    tokens = backbone.tokenize(captions)
    end = tokens.argmax(dim=-1)
    positions = backbone._project(
        text_positions(backbone.model, backbone.model.token_embedding(tokens))
    )
    mask = torch.arange(MAX_TOKENS, device=backbone.device) <= end[:, None]
    rows = torch.arange(len(tokens), device=backbone.device)
    seen = backbone.encode_images(pixels)
    images = FeatureSet(seen.global_features, seen.local_features, None, labels)
    return FeatureSet(positions[rows, end], positions, mask, labels), images


def make_runner(
    backbone: Backbone, names: tuple[str, ...], contestant: str, batch: Batch
) -> Runner:
    """The paper's method at its usual settings, from seed 0."""
    made = recipe("t2ipal", "coco2014", names, names)
    method: Any = made.method.build(cast(Any, Reading(backbone, contestant)), 0)
    method.prepare(batch.data())
    optimizer = make_optimizer(method.parameter_groups(made.training), made.training)
    return Runner(contestant, method, optimizer)


def step(runner: Runner, backbone: Backbone, batch: Batch) -> None:
    """One step and its seconds."""
    started = clock(backbone.device)
    texts, images = batch.cut, batch.images
    if runner.contestant == "usual":
        texts, images = encode(backbone, batch.captions, batch.pixels, images.labels)
    elif runner.contestant == "cached":
        texts = batch.texts
    losses = runner.method.loss(images, texts)
    runner.optimizer.zero_grad()
    losses.total.backward()
    runner.optimizer.step()
    runner.seconds.append(clock(backbone.device) - started)
    runner.losses.append(losses.total.item())


def clock(device: torch.device) -> float:
    """Seconds, when all that the device was asked is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def compare(backbone: Backbone, num_classes: int, options: Options) -> dict[str, Runner]:
    """Every contestant's steps, in turns."""
    names = class_names(num_classes)
    batches = [make_batch(backbone, names, options.batch_size, at) for at in range(options.rounds)]
    runners = {name: make_runner(backbone, names, name, batches[0]) for name in CONTESTANTS}
    for at, batch in enumerate(batches):
        for name in CONTESTANTS if at % 2 == 0 else CONTESTANTS[::-1]:
            step(runners[name], backbone, batch)
    print(f"\n{num_classes} classes, batch {options.batch_size}: seconds a step, median (spread)")
    for name, runner in runners.items():
        print(f"  {name:<10} {describe(runner.seconds)}   last loss {runner.losses[-1]:.6f}")
    return runners


def describe(seconds: Sequence[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(seconds):8.3f} ({min(seconds):.3f} to {max(seconds):.3f})"


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Of the medians."""
    return round(statistics.median(slow) / statistics.median(fast), 2)


def largest_difference(runners: dict[str, Runner]) -> float:
    """Of any contestant's loss from ours, relative, at any step; nan where a loss is."""
    curves = np.array([runner.losses for runner in runners.values()])
    ours = np.array(runners["ours"].losses)
    return float(np.max(np.abs(curves - ours) / np.abs(ours)))


def prompt_seconds(backbone: Backbone, options: Options) -> dict[str, list[float]]:
    """Encoding 80 classes' prompts, there and back, in turns; ours in bfloat16 too."""
    names = class_names(80)
    batch = make_batch(backbone, names, 2, 0)
    methods = {name: make_runner(backbone, names, name, batch).method for name in CONTESTANTS[1:]}
    if computes_bf16(options.device):
        methods["bf16"] = methods["ours"]
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(options.rounds):
        for name, method in methods.items():
            started = clock(backbone.device)
            with autocast("bf16" if name == "bf16" else "fp32", backbone.device):
                embeddings = method.class_embeddings()
            sum(part.sum() for part in embeddings).backward()  # type: ignore
            seconds[name].append(clock(backbone.device) - started)
    print("\nprompts of 80 classes, forward and backward")
    for name, values in seconds.items():
        print(f"  {name:<10} {describe(values)}")
    return seconds


def growth(backbone: Backbone, options: Options) -> dict[str, Any]:
    """Our cost by classes, batch and captions, and exponents: seconds ~ size ** exponent."""

    def step_seconds(num_classes: int, size: int) -> float:
        names = class_names(num_classes)
        batch = make_batch(backbone, names, 8, 0, repeated=size // 8)
        runner = make_runner(backbone, names, "ours", batch)
        for _ in range(3):
            step(runner, backbone, batch)
        return min(runner.seconds)

    def epoch_seconds(num_captions: int) -> float:
        names = class_names(80)
        batch = make_batch(backbone, names, 8, 0, repeated=num_captions // 8)
        method = make_runner(backbone, names, "ours", batch).method
        training = TrainingConfig(num_epochs=1, batch_size=32, precision="fp32")
        return fit(method, batch.data(), training).seconds

    print("\nour cost grows: seconds of a step by classes (batch 32) and by batch (80 classes),")
    print("and of an epoch by captions (batch 32, 80 classes)")
    found: dict[str, Any] = {}
    for what, sizes, measure in (
        ("classes", (20, 80, 320, 1000), lambda n: step_seconds(n, 32)),
        ("batch", (32, 128, 512), lambda n: step_seconds(80, n)),
        ("captions", (128, 256, 512), epoch_seconds),
    ):
        times = [measure(size) for size in sizes]
        print(f"  {what:<8} " + ", ".join(f"{n}: {t:.3f}" for n, t in zip(sizes, times)))
        found[f"exponent_{what}"] = exponent(sizes, times)
    return found


def exponent(sizes: Sequence[int], times: Sequence[float]) -> float:
    """Slope of a line through the logarithms."""
    return round(float(np.polyfit(np.log(sizes), np.log(times), 1)[0]), 2)


def peak_memory(folder: Path, options: Options) -> dict[str, int]:
    """MiB of a fresh process that makes one step: of each contestant, and ours with 1,000."""
    peaks = {}
    for name, classes in [*((name, 80) for name in CONTESTANTS), ("ours", MEMORY_CLASSES)]:
        words = ["--only", name, "--num-classes", str(classes), "--folder", str(folder)]
        words += ["--device", options.device, "--batch-size", str(options.batch_size)]
        done = subprocess.run(
            [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True
        )
        key = name if classes == 80 else f"{name}_{classes}"
        peaks[key] = json.loads(done.stdout.splitlines()[-1])["peak_mib"]
    print("\npeak memory of a process, MiB: " + ", ".join(f"{n} {v}" for n, v in peaks.items()))
    return peaks


def measure_one(backbone: Backbone, options: Options, contestant: str) -> dict[str, Any]:
    """One step alone; on a GPU its memory, else the process's."""
    names = class_names(options.num_classes)
    # Few rows are encoded, so that the peak is the step's.
    batch = make_batch(backbone, names, 1, 0, repeated=options.batch_size)
    if contestant == "usual":
        pixels = batch.pixels.repeat(options.batch_size, 1, 1, 1)
        captions = batch.captions * options.batch_size
        batch = dataclasses.replace(batch, captions=captions, pixels=pixels)
    runner = make_runner(backbone, names, contestant, batch)
    step(runner, backbone, batch)
    if backbone.device.type == "cuda":
        return {"peak_mib": torch.cuda.max_memory_allocated() // 2**20}
    # Not of getrusage, which starts from the parent's.
    status = Path("/proc/self/status").read_text()
    return {"peak_mib": int(status.partition("VmHWM:")[2].split()[0]) // 1024}


def shortfalls(result: dict[str, Any]) -> list[str]:
    """What does not hold, in words."""
    found = []
    if not result["loss_difference"] <= TOLERANCE:  # not a number does not hold either
        difference = result["loss_difference"]
        found.append(f"Loss curves must agree to {TOLERANCE}, they differ by {difference:.1e}.")
    for name, least in DEMANDS.items():
        if result[name] < least:
            found.append(f"{name} must be {least:g} or more, got {result[name]}.")
    peak = result.get("peak_mib", {}).get(f"ours_{MEMORY_CLASSES}", 0)
    if peak > MEMORY_MIB:
        found.append(f"{MEMORY_CLASSES} classes must fit into {MEMORY_MIB} MiB, they took {peak}.")
    return found


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures and prints."""
    options = parse(Options, arguments, __doc__)
    torch.set_num_threads(options.num_threads)
    with tempfile.TemporaryDirectory(prefix="t2ipal-clip-") as temporary:
        folder = Path(options.folder or temporary)
        if not (folder / "open_clip_config.json").exists():
            write_random_clip(folder, options.model)
        backbone = load_backbone(BackboneConfig(model=str(folder), device=options.device))
        if options.only is not None:
            return finish(measure_one(backbone, options, options.only))
        result: dict[str, Any] = {"model": options.model, "batch_size": options.batch_size}
        result["loss_difference"] = 0.0
        for num_classes in (20, 80):
            runners = compare(backbone, num_classes, options)
            difference = largest_difference(runners)
            result["loss_difference"] = float(np.maximum(difference, result["loss_difference"]))
            ours = runners["ours"].seconds
            for name in CONTESTANTS[:-1]:
                against = "usual_loop" if name == "usual" else name
                result[f"over_{against}_{num_classes}"] = ratio(runners[name].seconds, ours)
        prompts = prompt_seconds(backbone, options)
        result["prompts_over_77_tokens"] = ratio(prompts["cached"], prompts["ours"])
        result["prompts_over_truncated"] = ratio(prompts["truncated"], prompts["ours"])
        if "bf16" in prompts:
            result["bf16_over_fp32"] = ratio(prompts["ours"], prompts["bf16"])
        if options.memory:
            result["peak_mib"] = peak_memory(folder, options)
        if options.growth:
            result.update(growth(backbone, options))
    finish(result)
    if found := shortfalls(result):
        raise RuntimeError(" ".join(found))
    return result


if __name__ == "__main__":
    run_job(main)
