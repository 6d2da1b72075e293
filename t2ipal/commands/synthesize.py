"""Captions in, a stored set of synthetic images out.

On this machine, on the embedded Stable Diffusion:

    python jobs/synthesize.py --captions captions_val2017.json --vocabulary voc2007 \
        --num-captions 400 --output runs/coco

On a cluster (see cluster.yaml), where every path must be one that all machines reach:

    ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
        python jobs/synthesize.py --captions s3://BUCKET/captions.json \
        --output s3://BUCKET/runs/coco --gpus-per-worker 1 --max-workers 8

The same command again skips finished shards; with more captions or more images per caption the run
grows. jobs/status.py shows how far it is. One image again, from what the store says of it:

    python jobs/synthesize.py --output runs/coco --only 00003-00017

With the CLIP named that jobs/train.py will ask for, its features of the images are taken where
these are drawn, and training finds them there:

    python jobs/synthesize.py ... --features --backbone.model RN101 --backbone.device cuda

The last line of the output is a JSON summary.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from t2ipal.commands.running import FLAT, finish, parse, remark, session
from t2ipal.config import one_of, require
from t2ipal.diffusion.config import PRESETS, SynthesisConfig
from t2ipal.engine.config import RayConfig
from t2ipal.engine.workers import synthesis_workers
from t2ipal.features.config import BackboneConfig
from t2ipal.places import SharedUri
from t2ipal.store import Store
from t2ipal.synthesis.request import CaptionSource, ExecutionConfig


@dataclass(frozen=True)
class Options:
    """Draws the captions that name a class, and stores the images."""

    output: SharedUri
    """Folder of the run: a local path, or s3://bucket/prefix."""
    only: str | None = None
    """Make one image of a run again, byte for byte on the same kind of device, and store it as
    `remade/KEY.jpg` there (.png and .webp in a run of those): its key as in the tar, e.g.
    00003-00017. Where other bytes come out, the summary names the versions and the device that
    differ from the shard's. Nothing else is looked at."""
    images_per_shard: int = 128
    """Images of one stored shard, the unit that is skipped or made again after a crash. A shard is
    three objects, and a worker holds up to three times its size in memory. For a million images
    8192 makes 374 objects (1 GB a shard at 512 px), 128 makes 23,444."""
    endpoint_url: str | None = None
    """Server of output and captions on an S3 that is not on AWS; AWS_ENDPOINT_URL does the same,
    for the workers too."""
    preset: str | None = None
    """Settings of a model of few steps: sd-turbo, sdxl-turbo, sdxl-lightning or lcm. Other options
    replace them; --help beside it shows them as defaults."""
    in_process: bool = False
    """Run in this process, without Ray: one worker, easy to debug."""
    features: bool = False
    """Also store the features of every shard, from the worker that makes it: those that
    jobs/train.py would compute, as it still does for shards that have none. Workers with a GPU want
    `--backbone.device cuda`: on their few CPU cores features may take longer than images."""
    source: Annotated[CaptionSource, FLAT] = field(default_factory=CaptionSource)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    synthesis: Annotated[SynthesisConfig, FLAT] = field(default_factory=SynthesisConfig)
    execution: Annotated[ExecutionConfig, FLAT] = field(default_factory=ExecutionConfig)
    ray: Annotated[RayConfig, FLAT] = field(default_factory=RayConfig)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    return run(_parse_with_preset(arguments))


def run(options: Options) -> dict[str, Any]:
    """Runs the job with options that are read already."""
    store = Store(options.output, options.endpoint_url)
    from t2ipal.synthesis.remaking import remake_into

    only = options.only
    return finish(_synthesize(store, options) if only is None else remake_into(store, only))


def _synthesize(store: Store, options: Options) -> dict[str, Any]:
    from t2ipal.synthesis.filling import fill, prepare_filling

    require(
        options.features or options.backbone == BackboneConfig(),
        "The backbone options say whose features to store: add --features, or leave them out.",
    )
    filling = prepare_filling(  # before Ray starts
        options.source,
        options.synthesis,
        options.images_per_shard,
        options.backbone if options.features else None,
        options.endpoint_url,
        remark,
    )
    execution, in_process = options.execution, options.in_process
    with session(in_process, options.ray, execution):
        return fill(store, filling, execution, synthesis_workers(in_process))


def _parse_with_preset(arguments: Sequence[str] | None) -> Options:
    """The options, on top of the preset that they name."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    preset = first.parse_known_args(arguments)[0].preset
    if preset is None:
        return parse(Options, arguments, __doc__)
    one_of("preset", preset, PRESETS)
    default = Options(tyro.MISSING, synthesis=SynthesisConfig(**PRESETS[preset]))
    return parse(Options, arguments, __doc__, default=default)
