"""Parts a and b of benchmarks/synthesis.py: a whole run against its generator, and against the
obvious pipeline.

The only part that needs Ray. Contestants take turns in every round, on the same captions.
"""

import contextlib
import dataclasses
import io
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from benchmarks.synthesis_stub import Batch, HeldDevice, PipelineSizes, photograph
from benchmarks.synthesis_table import Row, ratio, rows_of_rates
from t2ipal.captions import FilterResult
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.diffusion.synthesizer import Synthesizer
from t2ipal.engine.pool import on_ray
from t2ipal.engine.session import connect
from t2ipal.experiments.demo import choose_captions
from t2ipal.store import Store
from t2ipal.store.images import encode_image
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.request import ExecutionConfig, SynthesisRequest

Generate = Callable[[Batch], Batch]


class Clocked:
    """Notes when a worker that is loaded and warm is asked for its first micro-batch."""

    def __init__(self, config: SynthesisConfig, factory: Callable[..., Generate], note: Path):
        self.generate, self.note, self.warm = factory(config), note, False
        self.generate(micro_batches(["a dog"] * config.batch_size, config.batch_size)[0])

    def __call__(self, batch: Batch) -> Batch:
        """The generator's own output."""
        if not self.warm:
            self.warm = True
            with contextlib.suppress(FileExistsError), self.note.open("x") as file:
                file.write(repr(time.time()))
        return self.generate(batch)


def whole_pipeline(
    request: SynthesisRequest, factory: Callable[..., Generate], workers: int
) -> float:
    """Images a second through Ray into a folder, from the first micro-batch to the last marker.

    A run of hours does not see the start of its workers; everything else counts.
    """
    with tempfile.TemporaryDirectory() as folder:
        note, store = Path(folder) / "began", Store(f"{folder}/run")
        clocked = partial(Clocked, factory=factory, note=note)
        made = synthesize(
            store, request, ExecutionConfig(workers, workers), workers=on_ray, factory=clocked
        )
        markers = [at for key, at in store.times("images/").items() if key.endswith(".json")]
        return made.num_images / (max(markers) - float(note.read_text()))


def micro_batches(captions: Sequence[str], size: int) -> list[Batch]:
    """One image of each caption, cut to micro-batches."""
    parts = [captions[start : start + size] for start in range(0, len(captions), size)]
    return [
        {
            "caption_id": np.array([f"{number}-{at}" for at in range(len(part))]),
            "caption": np.array(part),
            "k": np.zeros(len(part), dtype=np.int64),
            "labels": [()] * len(part),
        }
        for number, part in enumerate(parts)
    ]


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of torch inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def bare_loop(captions: Sequence[str], generate: Generate, batch_size: int) -> float:
    """Images a second of the generator alone, with a worker's micro-batches and one thread."""
    batches = micro_batches(captions, batch_size)
    with threads(1):
        generate(batches[0])
        started = time.monotonic()
        for batch in batches:
            generate(batch)
        return len(captions) / (time.monotonic() - started)


def obvious_pipeline(captions: Sequence[str], generate: Generate, num_threads: int) -> float:
    """Images a second of one prompt after another, each a PNG and an object of its own."""
    batches = micro_batches(captions, 1)
    with tempfile.TemporaryDirectory() as folder, threads(num_threads):
        store = Store(folder)
        generate(batches[0])
        started = time.monotonic()
        for number, batch in enumerate(batches):
            buffer = io.BytesIO()
            Image.fromarray(generate(batch)["image"][0]).save(buffer, "PNG")
            store.write(f"{number}.png", buffer.getvalue())
        return len(captions) / (time.monotonic() - started)


def contestants(
    subject: str,
    request: SynthesisRequest,
    factory: Callable[..., Generate],
    parts: Collection[str],
    num_obvious: int,
) -> dict[str, Callable[[], float]]:
    """What is measured in a round, in this order."""
    texts = [caption.caption for caption in request.captions.kept]
    here, few = factory(request.config), texts[:num_obvious]
    found = {"whole pipeline, 1 worker": partial(whole_pipeline, request, factory, 1)}
    if "a" in parts:
        bare = partial(bare_loop, texts, here, request.config.batch_size)
        found = {"bare loop": bare, **found}
    if "b" in parts:
        found["obvious pipeline, 1 thread"] = partial(obvious_pipeline, few, here, 1)
        if subject == "embedded":  # a second worker of the stub would be a second device
            found["whole pipeline, 2 workers"] = partial(whole_pipeline, request, factory, 2)
            found["obvious pipeline, 2 threads"] = partial(obvious_pipeline, few, here, 2)
    return found


def measure_pipelines(
    sizes: PipelineSizes, embedded: SynthesisConfig, rounds: int, parts: Collection[str]
) -> list[Row]:
    """Rates and ratios of all contestants, by generator.

    Args:
        sizes: how much.
        embedded: the embedded Stable Diffusion's settings.
        rounds: how often.
        parts: "a", "b" or both.
    """
    vocabulary, captions = choose_captions(sizes.num_images)
    request = SynthesisRequest(
        embedded, vocabulary, FilterResult(captions.kept, []), sizes.images_per_shard
    )
    held = dataclasses.replace(
        embedded, pipeline="stub", image_size_px=sizes.stub_size_px,
        batch_size=sizes.stub_batch_size,
    )  # fmt: skip
    stub = partial(HeldDevice, image_seconds=sizes.image_seconds)
    known: dict[str, tuple[SynthesisConfig, Callable[..., Generate]]] = {
        "stub": (held, partial(stub, launch_seconds=sizes.launch_seconds)),
        "stub without launch cost": (held, partial(stub, launch_seconds=0.0)),
        "embedded": (embedded, Synthesizer),
    }
    taking_part = {
        name: contestants(
            name, dataclasses.replace(request, config=known[name][0]), known[name][1], parts,
            sizes.num_obvious,
        )
        for name in sizes.generators
    }  # fmt: skip
    rates: dict[str, dict[str, list[float]]] = {}
    turns = [
        (name, what, measure)
        for _ in range(rounds)
        for name, measures in taking_part.items()
        for what, measure in measures.items()
    ]
    with connect(least_cpus=2):
        bar = tqdm(turns, desc="pipelines", unit="run")
        for name, what, measure in bar:
            rate = measure()
            rates.setdefault(name, {}).setdefault(what, []).append(rate)
            bar.set_postfix_str(f"{name}, {what}: {rate:.3g} images/s")
    rows = []
    for name, of in rates.items():
        rows += compare(name, of)
    return [*rows, *codecs(sizes.stub_size_px)]


def compare(subject: str, rates: dict[str, list[float]]) -> list[Row]:
    """The rows of one generator: rates, then the ratios that the claims are about."""
    rows = rows_of_rates("a, b", subject, rates)
    ours = rows["whole pipeline, 1 worker"]
    found = list(rows.values())
    if bare := rows.get("bare loop"):
        found.append(ratio("a", subject, ours, bare, "1 worker over bare loop", "claim: >= 0.97"))
    for workers, num_threads in (("1 worker", "1 thread"), ("2 workers", "2 threads")):
        if obvious := rows.get(f"obvious pipeline, {num_threads}"):
            what = f"{workers} over obvious pipeline with {num_threads}"
            ours = rows[f"whole pipeline, {workers}"]
            found.append(ratio("b", subject, ours, obvious, what, "claim: >= 2"))
    return found


def codecs(side: int, count: int = 8) -> list[Row]:
    """What encoding one of the stub's images takes on one core here."""
    image, rows = photograph(side), []

    def png() -> None:
        Image.fromarray(image).save(io.BytesIO(), "PNG")

    for name, encode in (("PNG", png), ("JPEG", partial(encode_image, image, "jpeg", 95, "4:2:0"))):
        started = time.process_time()
        for _ in range(count):
            encode()
        rate = count / (time.process_time() - started)
        rows.append(Row("b", f"{side} px", f"{name}, images/s of one core", (rate,)))
    return rows
