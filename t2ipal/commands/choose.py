"""Measures every synthetic image with the frozen CLIP, and chooses which are worth training on.

Only look (columns for every image, all are kept):

    python jobs/choose.py --run runs/coco --name measured --min-found 0

Keep the best two images of each caption in which half of the named classes are found:

    python jobs/choose.py --run runs/coco --name good --best 2
    python jobs/train.py --run runs/coco --images good

Writes RUN/manifests/NAME.parquet (CLIP similarity, classes found and missing, twins, kept or not)
and NAME.json; no image is copied or removed. The last line of the output is a JSON summary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from t2ipal.commands.running import FLAT, finish, parse, session
from t2ipal.config import to_dict
from t2ipal.engine.config import RayConfig
from t2ipal.engine.workers import extract
from t2ipal.features.config import BackboneConfig, FeatureAccess
from t2ipal.places import SharedUri
from t2ipal.pools import PoolConfig
from t2ipal.selection.config import ChoiceConfig, QualityConfig
from t2ipal.store import Store, check_choice_name, read_manifest_with_images


@dataclass(frozen=True)
class Options:
    """Chooses among the images of a run."""

    run: SharedUri
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
    access: Annotated[FeatureAccess, FLAT] = field(default_factory=FeatureAccess)
    pool: Annotated[PoolConfig, FLAT] = field(default_factory=PoolConfig)
    ray: Annotated[RayConfig, FLAT] = field(default_factory=RayConfig)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    return run(parse(Options, arguments, __doc__))


def run(options: Options) -> dict[str, Any]:
    """Runs the job with options that are read already."""
    from t2ipal.selection.choosing import describe_choice, measure_run, save_choice

    check_choice_name(options.name)
    store = Store(options.run, options.endpoint_url)
    read_manifest_with_images(store)  # before Ray starts: there may be no run
    pool, in_process = options.pool, options.in_process
    with session(in_process, options.ray, pool):
        folder = extract(store, options.backbone, in_process, pool)
        measured = measure_run(store, folder, options.backbone, options.quality, options.access)
    facts = {"features": folder, "quality": to_dict(options.quality)}
    kept, summary = save_choice(measured, options.name, options.choice, facts)
    print(describe_choice(measured, kept))
    return finish(summary)
