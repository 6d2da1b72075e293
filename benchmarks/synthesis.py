"""The whole synthesis pipeline against a bare generator loop and against the obvious pipeline.

    python benchmarks/synthesis.py

Side by side in one run, alternating, medians and spread over the rounds. The whole pipeline is
shard plans on Ray, JPEG, tar, sidecar, marker, in a folder; its clock runs from the first
micro-batch to the last marker, since a run of hours does not see the start of its workers. Prints a
table and, last, one JSON line.
"""

import contextlib
import dataclasses
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import tyro
from PIL import Image
from tqdm import tqdm

from jobs import demo
from jobs._job import run_job
from t2ipal.captions import FilterResult
from t2ipal.engine.pool import RunConfig
from t2ipal.engine.session import connect
from t2ipal.engine.synthesis import SynthesisRequest, synthesize
from t2ipal.store import Store
from t2ipal.synthesis import SynthesisConfig, Synthesizer

Rates = dict[str, list[float]]
"""Images a second of each contestant, one number a round."""


@dataclass(frozen=True)
class Options:
    """How much is made, how often."""

    num_images: int = 384
    """Images of every contestant in every round."""
    rounds: int = 3
    """Times that everything is measured, in turn."""
    stub_seconds: float = 0.04
    """Seconds for which the stub holds its device for each image."""
    stub_size_px: int = 512
    """Side of the stub's images."""


class HeldDevice:
    """A generator that holds its device for a fixed time, as a GPU would, and computes nothing."""

    def __init__(self, config: SynthesisConfig, seconds: float):
        self.seconds = seconds
        size = config.image_size_px
        noise = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        # Smooth, as photographs are: noise would make JPEG work as it never has to.
        picture = Image.fromarray(noise).resize((size or 64, size or 64), Image.Resampling.BICUBIC)
        self.image = np.asarray(picture)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As `Synthesizer`, the same image for all."""
        count = len(batch["k"])
        time.sleep(self.seconds * count)
        return {
            **batch,
            "image": np.repeat(self.image[None], count, axis=0),
            "seed": np.zeros(count, dtype=np.uint64),
            "status": np.full(count, "ok"),
            "reason": np.full(count, ""),
        }


class Clocked:
    """Notes when a generator is asked for the first time."""

    def __init__(self, config: SynthesisConfig, factory: Callable[..., Any], note: Path):
        self.generate, self.note = factory(config), note

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The generator's own output."""
        if not self.note.exists():
            self.note.write_text(repr(time.time()))
        return self.generate(batch)


def whole_pipeline(request: SynthesisRequest, factory: Callable[..., Any], workers: int) -> float:
    """Images a second through Ray into a folder, from the first micro-batch to the last marker."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "began"
        clocked = partial(Clocked, factory=factory, note=note)
        run = RunConfig(min_workers=workers, max_workers=workers)
        made = synthesize(Store(f"{folder}/run"), request, run, factory=clocked)
        return made.num_images / (time.time() - float(note.read_text()))


def micro_batches(request: SynthesisRequest, size: int) -> list[dict[str, np.ndarray]]:
    """The request's samples, one image of each caption, cut to micro-batches."""
    kept = request.captions.kept
    return [
        {
            "caption_id": np.array([caption.caption_id for caption in part]),
            "caption": np.array([caption.text for caption in part]),
            "k": np.zeros(len(part), dtype=np.int64),
        }
        for part in (kept[start : start + size] for start in range(0, len(kept), size))
    ]


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of torch inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def bare_loop(request: SynthesisRequest, generate: Callable[..., Any]) -> float:
    """Images a second of the generator alone, with a worker's micro-batches and one thread."""
    batches = micro_batches(request, request.config.batch_size)
    with threads(1):
        started = time.monotonic()
        for batch in batches:
            generate(batch)
        return len(request.captions.kept) / (time.monotonic() - started)


def obvious_pipeline(request: SynthesisRequest, generate: Callable[..., Any]) -> float:
    """Images a second of one prompt after another, each a PNG and an object of its own.

    In one process with torch's own number of threads.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        started = time.monotonic()
        for batch in micro_batches(request, 1):
            buffer = io.BytesIO()
            Image.fromarray(generate(batch)["image"][0]).save(buffer, "PNG")
            store.write(f"{batch['caption_id'][0]}.png", buffer.getvalue())
        return len(request.captions.kept) / (time.monotonic() - started)


def measure(options: Options) -> dict[str, Rates]:
    """Rates of all contestants, by generator; each round measures all of them in turn."""
    vocabulary, captions = demo.choose_captions(options.num_images)
    filtered = FilterResult(captions.kept, [])
    drawn = dataclasses.replace(demo.Options().synthesis, images_per_caption=1, batch_size=32)
    held = dataclasses.replace(drawn, image_size_px=options.stub_size_px, batch_size=16)
    stub = partial(HeldDevice, seconds=options.stub_seconds)
    requests = {
        "stub": SynthesisRequest(held, vocabulary, filtered, images_per_shard=64),
        "embedded Stable Diffusion": SynthesisRequest(drawn, vocabulary, filtered, 64),
    }
    here = {"stub": stub(held), "embedded Stable Diffusion": Synthesizer(drawn)}
    factories: dict[str, Callable[..., Any]] = {
        "stub": stub,
        "embedded Stable Diffusion": Synthesizer,
    }
    rates: dict[str, Rates] = {name: {} for name in requests}

    def note(name: str, contestant: str, rate: float) -> None:
        rates[name].setdefault(contestant, []).append(rate)

    with connect(least_cpus=2):
        for _ in tqdm(range(options.rounds), desc="rounds", unit="round"):
            for name, request in requests.items():
                note(name, "bare loop", bare_loop(request, here[name]))
                note(name, "1 worker", whole_pipeline(request, factories[name], 1))
                note(name, "2 workers", whole_pipeline(request, factories[name], 2))
                note(name, "obvious pipeline", obvious_pipeline(request, here[name]))
    return rates


def ratios(rates: Rates) -> dict[str, list[float]]:
    """The two comparisons, round by round."""
    return {
        "1 worker over bare loop": _over(rates["1 worker"], rates["bare loop"]),
        "2 workers over obvious pipeline": _over(rates["2 workers"], rates["obvious pipeline"]),
    }


def _over(above: list[float], below: list[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def table(rates: dict[str, Rates]) -> str:
    """Medians and, in brackets, the least and the most of the rounds."""
    lines = ["| generator | what | median (least to most) |", "|---|---|---|"]
    for name, of in rates.items():
        for what, values in of.items():
            lines.append(f"| {name} | {what} | {_spread(values)} images/s |")
        for what, values in ratios(of).items():
            lines.append(f"| {name} | **{what}** | **{_spread(values)}** |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> dict[str, Any]:
    """Measures and prints."""
    options = tyro.cli(Options, description=__doc__)
    rates = measure(options)
    print(table(rates))
    compared = {name: ratios(of) for name, of in rates.items()}
    result = {"options": dataclasses.asdict(options), "images_per_second": rates, "ratio": compared}
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    run_job(main)
