"""Drawing again what did not come out: which captions lack good images."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from t2ipal.config import require, to_dict
from t2ipal.selection.choosing import ChoiceConfig, Measured, save_choice
from t2ipal.selection.config import RepairConfig
from t2ipal.selection.quality import ImageQuality, QualityConfig
from t2ipal.store import Store, read_manifest, read_sections


def lacking_images(
    quality: ImageQuality,
    num_captions: int,
    wanted: int,
    min_found: float,
    budget: int | None = None,
) -> dict[int, int]:
    """How many good images captions lack, by the row of the caption; none for those with enough.

    Args:
        quality: of all images that there are.
        num_captions: of the run, with those that have no image.
        wanted: good images of each caption.
        min_found: share of the named classes that a good image shows, 0 to 1.
        budget: images at most over all captions, those with the fewest good ones first; None: all.

    Raises:
        ValueError: a number out of its range.
    """
    require(0 <= min_found <= 1, f"min_found must be in 0..1, got {min_found}.")
    require(budget is None or budget >= 0, f"budget must be >= 0, got {budget}.")
    good = torch.zeros(num_captions, dtype=torch.long)
    good.index_add_(0, quality.caption, (quality.found_share >= min_found).long())
    left, lacking = budget, {}
    for caption in good.argsort(stable=True).tolist():
        count = wanted - int(good[caption])
        if left is not None:
            count = min(count, left)
            left -= max(count, 0)
        if count > 0:
            lacking[caption] = count
    return lacking


def repair_run(
    store: Store,
    name: str,
    config: RepairConfig,
    quality: QualityConfig,
    draw: Callable[[Mapping[int, int]], int],
    measure: Callable[[], Measured],
) -> tuple[Measured, Bool[Tensor, " images"], dict[str, Any]]:
    """All rounds, and the choice of the best images; returns what was measured, kept and made.

    Args:
        store: home of a finished run.
        name: of the choice of the best images.
        config: how much is drawn again.
        quality: what counts as found, kept with the choice.
        draw: makes more images of captions, by their positions; how many images the run then has.
        measure: looks at all images.
    """
    wanted = read_manifest(store).settings.images_per_caption
    shares, made = [], []
    count = draw({})  # what an interrupted repair left undone
    measured = measure()
    goal = (len(measured.run.caption_index.ids), wanted, config.min_found)
    shares.append(good_share(measured.quality, *goal))
    while len(made) < config.rounds:
        extras = lacking_images(measured.quality, *goal, _left(store, config.budget))
        if not extras:
            break
        before, count = count, draw(extras)
        made.append(count - before)
        measured = measure()
        shares.append(good_share(measured.quality, *goal))
    facts = {
        "features": measured.folder,
        "quality": to_dict(quality),
        "rounds": sum(bool(section.extras_key) for section in read_sections(store)),
        "min_found": config.min_found,
    }
    best = ChoiceConfig(min_found=0.0, best=wanted)
    kept, summary = save_choice(measured, name, best, facts)
    return measured, kept, {**summary, "num_made": made, "good_share": shares}


def good_share(quality: ImageQuality, num_captions: int, wanted: int, min_found: float) -> float:
    """Share of the wanted images of all captions for which there is a good one."""
    lacking = sum(lacking_images(quality, num_captions, wanted, min_found).values())
    return 1 - lacking / (wanted * num_captions)


def _left(store: Store, budget: int | None) -> int | None:
    """What the run's repairs so far, this one's earlier rounds included, leave of the budget."""
    spent = sum(section.num_extras for section in read_sections(store))
    return None if budget is None else max(budget - spent, 0)
