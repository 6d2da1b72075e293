"""Measures every synthetic image with the frozen CLIP, and chooses which are worth training on.

Only look (columns for every image, all are kept):

    python jobs/choose.py --run runs/coco --name measured --min-found 0

Keep the best two images of each caption in which half of the named classes are found:

    python jobs/choose.py --run runs/coco --name good --best 2
    python jobs/train.py --run runs/coco --images good

Writes RUN/manifests/NAME.parquet (CLIP similarity, classes found and missing, twins, kept or not)
and NAME.json; no image is copied or removed. The last line of the output is a JSON summary.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro

from jobs._job import run_job
from t2ipal.config import require, to_dict
from t2ipal.engine.extraction import extract_run
from t2ipal.engine.session import connect
from t2ipal.extraction import image_rows, read_hashes, read_training_features
from t2ipal.features import BackboneConfig, load_backbone
from t2ipal.quality import (
    ChoiceConfig,
    ImageQuality,
    QualityConfig,
    kept_images,
    measure_quality,
    zero_shot_embeddings,
)
from t2ipal.store import Store, check_choice_name, read_manifest, write_choice

FLAT = tyro.conf.arg(name="")


@dataclass(frozen=True)
class Options:
    """Chooses among the images of a run."""

    run: str
    """Folder that jobs/synthesize.py filled: a local path, or s3://bucket/prefix."""
    name: str = "chosen"
    """Of the choice, as jobs/train.py --images takes it; one of that name gives way."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    in_process: bool = False
    """Compute missing features in this process, without Ray."""
    choice: Annotated[ChoiceConfig, FLAT] = field(default_factory=ChoiceConfig)
    quality: Annotated[QualityConfig, FLAT] = field(default_factory=QualityConfig)
    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)


def manifest_with_images(store: Store) -> dict[str, Any]:
    """The run's manifest, where there is something to measure.

    Raises:
        FileNotFoundError: the run is not finished, or has no image.
    """
    manifest = read_manifest(store)
    if manifest["num_images"] == 0:
        raise FileNotFoundError(
            f"No image in {store.uri}: all {manifest['num_failed']:,} samples failed. Remove the "
            "cause, then add --retry-failed to the command of jobs/synthesize.py."
        )
    return manifest


def describe(quality: ImageQuality, kept: Any, class_names: Sequence[str]) -> str:
    """How often each class is found where it is named: in all images, and in the kept ones."""
    lines = [f"{'class':16} {'named':>7} {'found':>7} {'kept':>7} {'found':>7}"]
    rows = [(name, quality.named[:, i], quality.found[:, i]) for i, name in enumerate(class_names)]
    for name, named, found in [*rows, ("all", quality.named, quality.found)]:
        counts = [int(named.sum()), int(found.sum()), int(named[kept].sum())]
        if counts[0]:
            share = int(found[kept].sum()) / counts[2] if counts[2] else 0.0
            lines.append(
                f"{name:16} {counts[0]:7,} {counts[1] / counts[0]:7.1%} {counts[2]:7,} {share:7.1%}"
            )
    return "\n".join(lines)


def measure(
    store: Store, quality: QualityConfig, backbone: BackboneConfig, workers: int | None
) -> tuple[ImageQuality, str]:
    """Every image's columns, and the folder of the features; missing features are computed."""
    names = manifest_with_images(store)["settings"]["prompt_names"]
    folder = extract_run(store, backbone, num_workers=workers, progress=True)
    embeddings = zero_shot_embeddings(load_backbone(backbone), names)
    data = read_training_features(store, folder)
    return measure_quality(data, embeddings, read_hashes(store, folder), quality), folder


def save(
    store: Store, name: str, quality: ImageQuality, choice: ChoiceConfig, facts: dict[str, Any]
) -> dict[str, Any]:
    """Chooses, writes the choice and prints how often classes are found; returns the summary.

    Raises:
        ValueError: no image would be kept.
    """
    kept, rows = kept_images(quality, choice), image_rows(store)
    require(
        bool(kept.any()),
        f"The choice {name!r} would keep none of {len(rows):,} images: its min_found "
        f"{choice.min_found} and min_similarity {choice.min_similarity} must be lower.",
    )
    columns = zip(rows, quality.similarity.tolist(), quality.found, quality.twin.tolist(), kept)
    table = [
        {
            **{column: row[column] for column in ("key", "caption_id", "k")},
            "similarity": similarity,
            "found": [label for label in row["labels"] if found[label]],
            "missing": [label for label in row["labels"] if not found[label]],
            "twin_of": rows[twin]["key"] if twin >= 0 else "",
            "kept": bool(keep),
        }
        for row, similarity, found, twin, keep in columns
    ]
    write_choice(store, name, table, {"choice": to_dict(choice), **facts})
    print(describe(quality, kept, read_manifest(store)["class_names"]))
    return {
        "output": f"{store.uri}/manifests/{name}.json",
        "num_images": len(rows),
        "num_kept": int(kept.sum()),
        "found_share": int(quality.found.sum()) / max(int(quality.named.sum()), 1),
        "mean_similarity": float(quality.similarity.mean()),
        "num_twins": int((quality.twin >= 0).sum()),
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    check_choice_name(options.name)
    store = Store(options.run, options.endpoint_url)
    manifest_with_images(store)  # before Ray starts: there may be no run
    with nullcontext() if options.in_process else connect():
        workers = 0 if options.in_process else None
        quality, folder = measure(store, options.quality, options.backbone, workers)
    facts = {"features": folder, "quality": to_dict(options.quality)}
    result = save(store, options.name, quality, options.choice, facts)
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    run_job(main)
