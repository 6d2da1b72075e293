"""Which of the measured images are worth training on."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from t2ipal.config import require, to_dict
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig, FeatureAccess
from t2ipal.features.reading import read_hashes, training_features_of
from t2ipal.selection.config import ChoiceConfig
from t2ipal.selection.quality import (
    ImageQuality,
    QualityConfig,
    measure_quality,
    zero_shot_embeddings,
)
from t2ipal.store import ChoiceRow, Run, Store, read_run, write_choice


def kept_images(quality: ImageQuality, config: ChoiceConfig) -> Bool[Tensor, " images"]:
    """Which images to keep."""
    good = quality.found_share >= config.min_found
    good &= quality.similarity >= config.min_similarity
    order = good.nonzero().flatten()
    if config.best is not None:
        for column in (quality.similarity, quality.found_share):  # the last one comes first
            order = order[column[order].argsort(descending=True, stable=True)]
    keep, taken, seen = torch.zeros_like(good), defaultdict[int, int](int), set[int]()
    captions, twins = quality.caption.tolist(), quality.twin.tolist()
    for row in order.tolist():
        if config.best is not None and taken[captions[row]] >= config.best:
            continue
        # Twins of one image look alike, whether or not that one is kept.
        looks = {row, twins[row]} - {-1}
        if config.keep_twins or not looks & seen:
            keep[row] = True
            taken[captions[row]] += 1
            seen |= looks
    return keep


@dataclass(frozen=True)
class Measured:
    """A run's images as CLIP sees them."""

    run: Run
    quality: ImageQuality
    folder: str
    """Of the features that were looked at."""


def measure_run(
    store: Store,
    folder: str,
    backbone: BackboneConfig,
    config: QualityConfig,
    access: FeatureAccess | None = None,
) -> Measured:
    """Every image's columns, from the run's stored features.

    Args:
        store: home of a finished run.
        folder: of the backbone's features in it, all of them there.
        backbone: whose features these are.
        config: what counts as found and as a twin.
        access: how the features are read.
    """
    run = read_run(store)
    embeddings = zero_shot_embeddings(load_backbone(backbone), run.settings.prompt_names)
    data = training_features_of(run, folder, access=access)
    quality = measure_quality(data, embeddings, read_hashes(run, data.images), config)
    return Measured(run, quality, folder)


def save_choice(
    measured: Measured, name: str, choice: ChoiceConfig, facts: Mapping[str, Any]
) -> tuple[Bool[Tensor, " images"], dict[str, Any]]:
    """Chooses and writes the choice; returns which images are kept, and the summary.

    Args:
        measured: the run's images.
        name: of the choice.
        choice: which images to keep.
        facts: plain values to keep with the choice.

    Raises:
        ValueError: no image would be kept.
    """
    run, quality = measured.run, measured.quality
    kept, store = kept_images(quality, choice), run.store
    require(
        bool(kept.any()),
        f"The choice {name!r} would keep none of {len(kept):,} images: its min_found "
        f"{choice.min_found} and min_similarity {choice.min_similarity} must be lower.",
    )
    write_choice(store, name, _rows(measured, kept), {"choice": to_dict(choice), **facts})
    return kept, {
        "output": f"{store.uri}/manifests/{name}.json",
        "num_images": len(kept),
        "num_kept": int(kept.sum()),
        "found_share": int(quality.found.sum()) / max(int(quality.named.sum()), 1),
        "mean_similarity": float(quality.similarity.mean()),
        "num_twins": int((quality.twin >= 0).sum()),
    }


def _rows(measured: Measured, kept: Bool[Tensor, " images"]) -> Iterator[ChoiceRow]:
    """The rows of a choice, one after the other."""
    quality, images = measured.quality, measured.run.image_index
    ids = measured.run.caption_index.ids
    found, missing = quality.found, quality.named & ~quality.found
    for at in range(len(kept)):
        twin = int(quality.twin[at])
        yield ChoiceRow(
            key=images.keys[at],
            caption_id=ids[int(images.caption[at])],
            k=int(images.k[at]),
            similarity=float(quality.similarity[at]),
            found=tuple(found[at].nonzero().flatten().tolist()),
            missing=tuple(missing[at].nonzero().flatten().tolist()),
            twin_of=images.keys[twin] if twin >= 0 else "",
            kept=bool(kept[at]),
        )


def describe_choice(measured: Measured, kept: Bool[Tensor, " images"]) -> str:
    """How often each class is found where it is named: in all images, and in the kept ones."""
    quality, class_names = measured.quality, measured.run.settings.class_names
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
