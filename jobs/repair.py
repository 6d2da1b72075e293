"""Draws again what did not come out: more images of captions whose classes CLIP does not find.

    python jobs/repair.py --run runs/coco --rounds 2 --budget 2000
    python jobs/train.py --run runs/coco --images repaired

Each round measures all images (as jobs/choose.py does), and makes for every caption as many new
ones as it has too few good ones. Nothing is removed: the choice `repaired` then names the best of
each caption, as many as there were before. The last line of the output is a JSON summary.
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
from jobs.choose import measure, save
from t2ipal.config import require, to_dict
from t2ipal.engine.pool import RunConfig
from t2ipal.engine.session import connect
from t2ipal.engine.synthesis import add_images
from t2ipal.features import BackboneConfig
from t2ipal.quality import ChoiceConfig, ImageQuality, QualityConfig, lacking_images
from t2ipal.report.card import write_card
from t2ipal.store import (
    Store,
    check_choice_name,
    read_manifest,
    read_sections,
    read_stored_captions,
)

FLAT = tyro.conf.arg(name="")


@dataclass(frozen=True)
class Options:
    """Makes up for images that do not show what their caption names."""

    run: str
    """Folder that jobs/synthesize.py filled: a local path, or s3://bucket/prefix."""
    name: str = "repaired"
    """Of the choice of the best images, as jobs/train.py --images takes it."""
    rounds: int = 1
    """Times that images are measured and drawn again."""
    budget: int | None = None
    """New images of the run at most, those of earlier repairs counted: the same command again, or
    after an interruption, draws none beyond it. None: as many as are lacking."""
    min_found: float = 1.0
    """An image is good where at least this share of its caption's classes is found, 0 to 1."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    in_process: bool = False
    """Run in this process, without Ray."""
    features: bool = False
    """Let the worker that draws new images take their features too, not others after it."""
    workers: Annotated[RunConfig, FLAT] = field(default_factory=RunConfig)
    quality: Annotated[QualityConfig, FLAT] = field(default_factory=QualityConfig)
    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)


def good_share(quality: ImageQuality, num_captions: int, wanted: int, min_found: float) -> float:
    """Share of the wanted images of all captions for which there is a good one."""
    lacking = sum(lacking_images(quality, num_captions, wanted, min_found).values())
    return 1 - lacking / (wanted * num_captions)


def left(store: Store, budget: int | None) -> int | None:
    """What the run's repairs so far, this one's earlier rounds included, leave of the budget."""
    spent = sum(section.num_extras for section in read_sections(store))
    return None if budget is None else max(budget - spent, 0)


def run(options: Options, store: Store, wanted: int) -> dict[str, Any]:
    """All rounds; `wanted` images of each caption should be good."""
    workers = 0 if options.in_process else None
    shares, made = [], []

    def draw(extras: dict[int, int]) -> int:
        summary = add_images(
            store,
            extras,
            options.workers,
            features=options.backbone if options.features else None,
            in_process=options.in_process,
            progress=True,
        )
        return summary.num_images

    count = draw({})  # what an interrupted repair left undone
    goal = (read_stored_captions(store).num_rows, wanted, options.min_found)
    quality, folder = measure(store, options.quality, options.backbone, workers)
    shares.append(good_share(quality, *goal))
    while len(made) < options.rounds:
        extras = lacking_images(quality, *goal, left(store, options.budget))
        if not extras:
            break
        before, count = count, draw(extras)
        made.append(count - before)
        quality, folder = measure(store, options.quality, options.backbone, workers)
        shares.append(good_share(quality, *goal))
    facts = {
        "features": folder,
        "quality": to_dict(options.quality),
        "rounds": sum(bool(section.extras_key) for section in read_sections(store)),
        "min_found": options.min_found,
    }
    write_card(store)  # it counts the images
    result = save(store, options.name, quality, ChoiceConfig(min_found=0.0, best=wanted), facts)
    return {**result, "num_made": made, "good_share": shares}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    rounds, budget, share = options.rounds, options.budget, options.min_found
    require(rounds > 0, f"rounds must be > 0, got {rounds}.")
    require(budget is None or budget >= 0, f"budget must be >= 0, got {budget}.")
    require(0 <= share <= 1, f"min_found must be in 0..1, got {share}.")
    check_choice_name(options.name)
    store = Store(options.run, options.endpoint_url)
    wanted = read_manifest(store)["settings"]["synthesis"]["images_per_caption"]
    with nullcontext() if options.in_process else connect():
        result = run(options, store, wanted)
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    run_job(main)
