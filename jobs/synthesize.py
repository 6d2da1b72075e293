r"""Captions in, a stored set of synthetic images out.

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
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro

from jobs._job import run_job
from t2ipal.acceleration import PRESETS
from t2ipal.captions import filter_captions, load_vocabulary, read_captions
from t2ipal.config import from_dict, one_of, require
from t2ipal.engine.pool import RunConfig
from t2ipal.engine.session import connect, runs_as_submitted_job
from t2ipal.engine.synthesis import SynthesisRequest, remake, synthesize, synthesize_locally
from t2ipal.extraction import feature_folder, feature_tasks
from t2ipal.features import BackboneConfig, load_backbone
from t2ipal.images import ENDINGS
from t2ipal.pipelines import check_pipeline
from t2ipal.report.card import write_card
from t2ipal.store import Store, read_settings
from t2ipal.synthesis import SynthesisConfig, with_class_prompts

FLAT = tyro.conf.arg(name="")


@dataclass(frozen=True)
class Options:
    """Draws the captions that name a class, and stores the images."""

    output: str
    """Folder of the run: a local path, or s3://bucket/prefix."""
    captions: str | None = None
    """Caption file, local or s3://: COCO json, jsonl, csv, parquet or one caption a line."""
    only: str | None = None
    """Make one image of a run again, byte for byte on the same kind of device, and store it as
    `remade/KEY.jpg` there (.png and .webp in a run of those): its key as in the tar, e.g.
    00003-00017. Where other bytes come out, the summary names the versions and the device that
    differ from the shard's. Nothing else is looked at."""
    vocabulary: str = "voc2007"
    """Classes to look for: voc2007, coco2014, nuswide, pictovoc_novel (the embedded world's things
    that are no VOC class), pictovoc_colors (its colors), or the path of a YAML of your own."""
    num_captions: int | None = None
    """Captions to keep, drawn at random from those that name a class; None: all."""
    caption_seed: int = 0
    """Seed of that draw; with the same seed, fewer captions are a part of more."""
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
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    synthesis: Annotated[SynthesisConfig, FLAT] = field(default_factory=SynthesisConfig)
    run: Annotated[RunConfig, FLAT] = field(default_factory=RunConfig)


def _remake(store: Store, key: str) -> dict[str, Any]:
    row, image, same, differing = remake(store, key)
    config = from_dict(SynthesisConfig, read_settings(store)["synthesis"])
    place = f"remade/{key}.{ENDINGS[config.image_format]}"
    store.write(place, image)
    result = {"output": f"{store.uri}/{place}", "same_as_stored": same, **row}
    if same is False:
        result["differences"] = differing
    print(json.dumps(result))
    return result


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The options, on top of the preset that they name."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    preset = first.parse_known_args(arguments)[0].preset
    if preset is None:
        return tyro.cli(Options, args=arguments, description=__doc__)
    one_of("preset", preset, PRESETS)
    default = Options(tyro.MISSING, synthesis=SynthesisConfig(**PRESETS[preset]))
    return tyro.cli(Options, args=arguments, default=default, description=__doc__)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = parse(arguments)
    if runs_as_submitted_job():
        require(
            "://" in options.output or options.output.startswith("/"),
            f"output must be s3:// or an absolute path, got {options.output!r}: "
            "a submitted job runs in a temporary copy of the working directory.",
        )
    store = Store(options.output, options.endpoint_url)
    if options.only is not None:
        return _remake(store, options.only)
    require(options.captions is not None, "captions must name a file, got none.")
    assert options.captions is not None
    vocabulary = load_vocabulary(options.vocabulary)
    filtered = filter_captions(
        read_captions(options.captions, options.endpoint_url),
        vocabulary,
        options.num_captions,
        options.caption_seed,
    )
    require(
        options.features or options.backbone == BackboneConfig(),
        "The backbone options say whose features to store: add --features, or leave them out.",
    )
    features, folder = options.backbone if options.features else None, None
    if features is not None:  # what workers could not load is refused before any of them starts
        folder = feature_folder(load_backbone(dataclasses.replace(features, device="cpu")))
    config = with_class_prompts(options.synthesis, vocabulary.prompt_names)
    check_pipeline(config)  # before Ray starts
    request = SynthesisRequest(config, vocabulary, filtered, options.images_per_shard)
    if options.in_process:
        summary = synthesize_locally(store, request, options.run, features=features, progress=True)
    else:
        workers, cpus = options.run.min_workers or 1, options.run.cpus_per_worker
        with connect(least_cpus=workers * cpus, least_gpus=options.run.gpus_per_worker or 0):
            summary = synthesize(store, request, options.run, features=features, progress=True)
    if summary.num_images:
        write_card(store)
    result = {
        "output": store.uri,
        "num_rejected": len(filtered.rejected),
        **dataclasses.asdict(summary),
    }
    if folder is not None:
        missing = [task for task in feature_tasks(store, folder) if task.kind == "images"]
        result.update(features=folder, num_shards_without_features=len(missing))
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    run_job(main)
