"""How fast synthesis is: the pipeline, the synthesizer, and what each option of it brings.

    python benchmarks/synthesis.py                     # all parts
    python benchmarks/synthesis.py --parts c --models sdxl

Side by side in one run, contestants taking turns, medians and spread over the rounds:
a: the whole pipeline (shard plans on Ray, JPEG, tar, sidecar, marker) against a bare loop;
b: against the obvious pipeline (one prompt after another, PNG inline, one object an image);
c: on a GPU, the synthesizer at the true sizes of SD1.5 and SDXL against stock diffusers;
d: options of the synthesizer with the embedded Stable Diffusion on this machine's processor.
Parts c and d need no Ray. Prints a table and, last, one JSON line.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.synthesis_devices import (
    PRECISIONS,
    DeviceSizes,
    measure_embedded,
    measure_models,
    not_measured,
    parse_changes,
)
from benchmarks.synthesis_stub import GENERATORS, PipelineSizes
from benchmarks.synthesis_table import Row, markdown
from benchmarks.true_size_models import SIZES
from t2ipal.commands.running import FLAT, parse, run_job
from t2ipal.config import one_of, require
from t2ipal.diffusion.config import SynthesisConfig

PARTS = ("a", "b", "c", "d")
EMBEDDED = SynthesisConfig(
    guidance_scale=2.0, guidance_until=0.6, num_inference_steps=14, batch_size=32
)
"""The embedded Stable Diffusion as jobs/demo.py runs it."""


@dataclass(frozen=True)
class Options:
    """What is measured, how often."""

    parts: tuple[str, ...] = PARTS
    """Parts to run."""
    rounds: int = 3
    """Times that everything is measured, in turn."""
    models: tuple[str, ...] = ("sd15", "sdxl")
    """Models of part c: sd15, sd21, sdxl."""
    pipelines: Annotated[PipelineSizes, FLAT] = field(default_factory=PipelineSizes)
    devices: Annotated[DeviceSizes, FLAT] = field(default_factory=DeviceSizes)


def check(options: Options) -> None:
    """Refuses what no part could measure."""
    for part in options.parts:
        one_of("part", part, PARTS)
    for model in options.models:
        one_of("model", model, SIZES)
    for name in options.pipelines.generators:
        one_of("generator", name, GENERATORS)
    one_of("precision", options.devices.precision, PRECISIONS)
    for text in options.devices.options:
        parse_changes(text)
    counts = {"rounds": options.rounds, **dataclasses.asdict(options.pipelines)}
    for name in ("rounds", "num_images", "num_obvious", "images_per_shard", "stub_batch_size"):
        require(counts[name] > 0, f"{name} must be > 0, got {counts[name]}.")


def measure(options: Options) -> list[Row]:
    """The rows of all parts."""
    rows: list[Row] = []
    if {"a", "b"} & {*options.parts}:
        # Here, since a machine for part c may lack Ray.
        from benchmarks.synthesis_pipelines import measure_pipelines

        rows += measure_pipelines(options.pipelines, EMBEDDED, options.rounds, options.parts)
    if "c" in options.parts:
        sizes = [SIZES[name] for name in options.models]
        if torch.cuda.is_available():
            rows += measure_models(sizes, options.devices, options.rounds)
        else:
            rows += not_measured(sizes, options.devices)
    if "d" in options.parts:
        rows += measure_embedded(EMBEDDED, options.devices, options.rounds)
    return rows


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures and prints."""
    options = parse(Options, arguments, __doc__)
    check(options)
    rows = measure(options)
    print(markdown(rows))
    result = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU",
        "options": dataclasses.asdict(options),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    run_job(main)
