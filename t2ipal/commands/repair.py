"""Draws again what did not come out: more images of captions whose classes CLIP does not find.

    python jobs/repair.py --run runs/coco --rounds 2 --budget 2000
    python jobs/train.py --run runs/coco --images repaired

Each round measures all images (as jobs/choose.py does), and makes for every caption as many new
ones as it has too few good ones. Nothing is removed: the choice `repaired` then names the best of
each caption, as many as there were before. The last line of the output is a JSON summary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

from t2ipal.commands.running import FLAT, finish, parse, session
from t2ipal.engine.config import RayConfig
from t2ipal.engine.workers import extract, synthesis_workers
from t2ipal.features.config import BackboneConfig, FeatureAccess
from t2ipal.places import SharedUri
from t2ipal.selection.config import QualityConfig, RepairConfig
from t2ipal.store import Store, check_choice_name, read_manifest, read_manifest_with_images
from t2ipal.synthesis.request import ExecutionConfig


@dataclass(frozen=True)
class Options:
    """Makes up for images that do not show what their caption names."""

    run: SharedUri
    """Folder that jobs/synthesize.py filled: a local path, or s3://bucket/prefix."""
    name: str = "repaired"
    """Of the choice of the best images, as jobs/train.py --images takes it."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    in_process: bool = False
    """Run in this process, without Ray."""
    features: bool = False
    """Let the worker that draws new images take their features too, not others after it."""
    repair: Annotated[RepairConfig, FLAT] = field(default_factory=RepairConfig)
    execution: Annotated[ExecutionConfig, FLAT] = field(default_factory=ExecutionConfig)
    quality: Annotated[QualityConfig, FLAT] = field(default_factory=QualityConfig)
    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)
    access: Annotated[FeatureAccess, FLAT] = field(default_factory=FeatureAccess)
    ray: Annotated[RayConfig, FLAT] = field(default_factory=RayConfig)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    options = parse(Options, arguments, __doc__)
    from t2ipal.features.extraction import extracting
    from t2ipal.selection.choosing import describe_choice, measure_run
    from t2ipal.selection.repairing import repair_run
    from t2ipal.synthesis.card import write_card
    from t2ipal.synthesis.making import add_images

    check_choice_name(options.name)
    store = Store(options.run, options.endpoint_url)
    read_manifest(store)  # before Ray starts: there may be no run
    after_commit = partial(extracting, options.backbone) if options.features else None
    workers = synthesis_workers(options.in_process)

    def draw(extras: Mapping[int, int]) -> int:
        made = add_images(
            store, extras, options.execution, workers=workers, after_commit=after_commit,
            progress=True,
        )  # fmt: skip
        return made.num_images

    def measure() -> Any:
        read_manifest_with_images(store)  # not before: an interrupted repair may bring some
        folder = extract(store, options.backbone, options.in_process, options.execution)
        return measure_run(store, folder, options.backbone, options.quality, options.access)

    with session(options.in_process, options.ray, options.execution):
        measured, kept, summary = repair_run(
            store, options.name, options.repair, options.quality, draw, measure
        )
    write_card(store)  # it counts the images
    print(describe_choice(measured, kept))
    return finish(summary)
