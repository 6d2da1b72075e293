"""A search over a run's features: residual ratio, sharpness, images per caption, and whatever else.

    python jobs/tune.py --run runs/demo --space tune_spaces/quick.yaml

Trials are trained many at once, in populations that Ray Tune starts on all machines, and scored on
synthetic images of held-out captions or on labelled images of yours, never on a test set. A page
about the search is served while it runs; its address is the first line of the output. The same
command again goes on where it was left. The winner is trained anew on all captions with

    python jobs/train.py --run runs/demo --from-search runs/demo/search

The last line of the output is a JSON summary.
"""

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from t2ipal.commands.running import FLAT, finish, parse, remark, session
from t2ipal.config import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_fields,
    parse_changes,
)
from t2ipal.dashboard.config import PageAddress
from t2ipal.engine.config import PopulationGroup, RayConfig
from t2ipal.engine.workers import extract, search_workers, synthesis_workers
from t2ipal.features.config import BackboneConfig, FeatureAccess
from t2ipal.places import LocalPath, NameOrUri, SharedUri
from t2ipal.pools import PoolConfig
from t2ipal.store import Store


@dataclass(frozen=True)
class Populations(PopulationGroup):
    """Their options, two of which go by the names that they had before."""

    cpus_per_population: Annotated[PositiveFloat, tyro.conf.arg(aliases=["--cpus-per-trial"])] = 1.0
    """CPU cores of each."""
    gpus_per_population: Annotated[
        NonNegativeFloat | None, tyro.conf.arg(aliases=["--gpus-per-trial"])
    ] = None
    """GPUs of each, a share of one allowed; None: 1 with a CUDA `device`, else 0."""


@dataclass(frozen=True)
class Options:
    """Searches the settings of one method on a run's captions and images."""

    run: SharedUri = "runs/demo"
    """Folder that jobs/synthesize.py (or jobs/demo.py) filled."""
    space: LocalPath = "tune_spaces/paper.yaml"
    """What to vary and how: a YAML file."""
    output: SharedUri | None = None
    """Folder or s3://bucket/prefix for the trials; None: `run`/search. Another search of the same
    run goes beside it, e.g. to `run`/search-wide, and is on the same page."""
    method: str = "t2ipal"
    """Recipe that the search starts from."""
    data_set: str = "pictovoc"
    """Whose schedule to take, by a test set's name: pictovoc, voc2007, coco2014, nuswide, ..."""
    set: tuple[str, ...] = ()
    """Changes that hold for every trial, as name=value with dotted names."""
    num_samples: int | None = None
    """Trials in place of the space's own number."""
    num_seeds: PositiveInt | None = None
    """Training seeds of each trial in place of the space's own number; their spread tells a winner
    from a lucky one."""
    validation_set: NameOrUri | None = None
    """Labelled images to score trials on: pictovoc_validation, or a folder of your own; None:
    synthetic images of captions that are held out of training."""
    max_minutes: PositiveFloat | None = None
    """When the job ends at the latest, in minutes from its start, but for an epoch; trials that run
    then are unfinished, and the same command runs them again. None: when all trials have ended."""
    max_images: NonNegativeInt | None = None
    """New images that may be synthesized for a space that varies guidance or steps; None: as many
    as are missing, which is said before it starts."""
    in_process: bool = False
    """Trains in this process, without Ray."""
    quiet: bool = False
    """No progress bar, for logs: a line for each new best alone."""
    page: bool = True
    """Serves a page about the search while it runs."""
    mlflow: str | None = None
    """Address of an MLflow server or database that gets the trials too."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)
    access: Annotated[FeatureAccess, FLAT] = field(default_factory=FeatureAccess)
    address: Annotated[PageAddress, FLAT] = field(default_factory=PageAddress)
    group: Annotated[Populations, FLAT] = field(default_factory=Populations)
    pool: Annotated[PoolConfig, FLAT] = field(default_factory=PoolConfig)
    ray: Annotated[RayConfig, FLAT] = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        check_fields(self)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    options = parse(Options, arguments, __doc__)
    from t2ipal.dashboard.page import write_page
    from t2ipal.dashboard.server import serve_search
    from t2ipal.evaluation.test_sets import schedule_of
    from t2ipal.features.backbone import load_text_tower
    from t2ipal.search.request import SearchRequest, kept_settings, load_data, plan_search
    from t2ipal.search.results import search_folder
    from t2ipal.search.running import Monitor, reasons
    from t2ipal.search.space_file import remarks
    from t2ipal.search.variants import plan_variants, synthesize_variants
    from t2ipal.search.viewers import search_viewers

    deadline_s = time.time() + 60 * (options.max_minutes or math.inf)
    store = Store(options.run, options.endpoint_url)
    request = SearchRequest(
        Path(options.space),
        options.method,
        schedule_of(options.data_set),
        parse_changes(options.set),
        options.num_samples,
        options.num_seeds,
        options.validation_set,
        options.backbone,
        options.access,
    )
    setting, search = plan_search(store, request)
    for each in remarks(search, setting):
        remark(each)
    variants = plan_variants(store, setting, search, options.max_images)
    if len(variants.sets) > 1 or variants.num_missing:
        remark(variants.describe())
    folder = search_folder(store, options.output, options.endpoint_url)
    folder.require_alone()
    group, in_process = options.group.on(options.backbone.device), options.in_process
    cpus, gpus = math.ceil(group.cpus_per_population), group.gpus_per_population or 0
    with contextlib.ExitStack() as during:
        if options.page:
            address = during.enter_context(serve_search(folder, options.address))
            print(f"The page of the search: {address}", flush=True)
        folder.begin(kept_settings(store, request, setting, search))
        viewers = during.enter_context(search_viewers(search, folder, options.mlflow))
        during.enter_context(session(in_process, options.ray, options.pool, cpus, gpus))
        workers, progress = synthesis_workers(in_process), not options.quiet
        synthesize_variants(variants, options.pool, workers=workers, progress=progress)
        others = [variant.store for variant in variants.sets if not variant.is_own]
        for each in (*others, store):
            features = extract(each, options.backbone, in_process, options.pool, progress)
        data = load_data(variants, request, search, features)
        load = partial(load_text_tower, options.backbone)
        train = search_workers(in_process, group)
        with Monitor(search, folder, options.quiet, viewers.update) as monitor:
            during.callback(write_page, folder.store, folder.folder)
            train(search, setting, data, load, folder, deadline_s)
    for (status, reason), count in reasons(monitor.trials).items():
        remark(f"{count} {status}: {reason}")
    return finish(monitor.outcome(deadline_s))
