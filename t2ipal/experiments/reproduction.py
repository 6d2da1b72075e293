"""The paper's tables and figures by one command: what is missing is made, trained and measured.

The order of things: which systems the items ask for, the sets of images, features, fits, numbers,
pages. Each step finds again what is done.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tqdm import tqdm

from t2ipal.config import require, to_dict
from t2ipal.engine.workers import extract, item_workers, test_set_workers
from t2ipal.evaluation import protocols
from t2ipal.evaluation.labelled_sets import labelled_features
from t2ipal.evaluation.stored_sets import stored_features
from t2ipal.evaluation.test_sets import load_test_set
from t2ipal.experiments.config import ReproductionConfig
from t2ipal.experiments.fitting import Fit, FitWork, in_groups, read_fits
from t2ipal.experiments.numbers import Numbers
from t2ipal.experiments.paper import choose_items
from t2ipal.experiments.points import Points
from t2ipal.experiments.rows import Item, System, systems_of
from t2ipal.experiments.sources import NOVEL, ORIGINAL, Captions, Data, Labels, Source, labelled_set
from t2ipal.experiments.world_sets import make_sets, set_requests
from t2ipal.experiments.written import Contents, write_pages
from t2ipal.features.backbone import load_backbone
from t2ipal.features.extraction import feature_folder
from t2ipal.store import Store, read_manifest

VALIDATION = "pictovoc_validation"
"""Scenes that choose a normalization, and the best of a line."""
LOOKS = ("pictovoc", "pictovoc_shifted", "pictovoc_night")
"""Three test sets side by side, as the paper has VOC2007, MS-COCO and NUS-WIDE."""
MORE_TESTS = (VALIDATION, "pictovoc_single", "pictovoc#novel")


def in_quick(config: ReproductionConfig) -> ReproductionConfig:
    """The config that `quick` stands for."""
    if not config.quick:
        return config
    synthesis = dataclasses.replace(config.synthesis, images_per_caption=3)
    fewer = {name: min(getattr(config, name), 250) for name in ("num_captions", "num_labelled")}
    return dataclasses.replace(
        config, seeds=min(config.seeds, 2), synthesis=synthesis, num_views=2, **fewer
    )


def points_of(config: ReproductionConfig) -> Points:
    """Where lines are measured."""
    world = config.on == "pictovoc"
    points = Points(LOOKS if world else (config.on,), is_world=world)
    scale = config.synthesis.guidance_scale
    points = dataclasses.replace(points, default_scale=scale)
    if not config.quick:
        return points
    return dataclasses.replace(
        points, main_images=2, image_counts=(1, 2, 3), guidance_scales=(1.0, scale, 6.0),
        sweep_images=1, portions=(0.1, 0.5, 0.9), shots=(1, 4, 16), image_weights=(0, 0.6, 1),
        residual_ratios=(0, 1, 4), sharpnesses=(1, 5.5, 10),
    )  # fmt: skip


def reproduce(
    config: ReproductionConfig, store: Store, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Measures the items; writes the pages and returns a summary.

    Args:
        config: what is asked for.
        store: home of everything that is made.
        tell: gets what a person may want to read meanwhile.

    Raises:
        ValueError: an unknown item or set, or a real data set without its folder.
        FileNotFoundError: a run that --sets names is not finished.
    """
    config = in_quick(config)
    points = points_of(config)
    items = choose_items(config.items, points)
    systems = [system for item in items for system in systems_of(item)]
    data = open_data(config, points, store)
    sources = used_sources(systems, data)
    if config.on == "pictovoc":
        make_sets(config, points, data.sets, set_names(sources), tell)
    data = with_features(config, data, systems, sources, tell)
    seeds = range(config.seeds)
    kept = frozenset(fit for system in kept_systems(items) for fit in system.fits(seeds))
    wanted = wanted_fits(systems, data, seeds)
    failed = train_missing(config, data, wanted, kept, tell)
    done = read_fits(wanted, data, kept)
    validation = VALIDATION if config.on == "pictovoc" else ""
    numbers = Numbers(data, seeds, done, failed, validation)
    return write_pages(Contents(config, points, items, data, numbers), store)


def open_data(config: ReproductionConfig, points: Points, store: Store) -> Data:
    """Where everything lies; nothing is read but the runs that are named."""
    backbones = {
        "main": config.backbone,
        "other": dataclasses.replace(config.backbone, model=config.other),
        "regions": dataclasses.replace(config.backbone, dense_features="regions"),
    }
    tests = points.test_sets
    if config.on == "pictovoc":
        require(not config.sets, "The embedded world makes its sets itself: leave sets out.")
        sets = {
            name: Store(f"{store.uri}/sets/{name}", store.endpoint_url)
            for name in set_requests(config, points)
        }
        tests = (*tests, *MORE_TESTS)
    else:
        require(config.test_root is not None, f"{config.on} needs its folder: give --test-root.")
        sets = {}
        for each in config.sets:
            name, equals, uri = each.partition("=")
            require(bool(equals and name and uri), f"sets must be NAME=RUN, got {each!r}.")
            sets[name] = Store(uri, store.endpoint_url)
            read_manifest(sets[name])
        tests = (*tests, f"{config.on}#novel") if config.on in NOVEL else tests
    return Data(
        store, config.on, sets, backbones, tests, config.test_root, config.num_labelled,
        config.num_views, 500 if config.quick else None, config.episodes, store.endpoint_url,
    )  # fmt: skip


def used_sources(systems: Iterable[System], data: Data) -> list[tuple[Source, str]]:
    """Sources that can be read, each with the backbone that sees it."""
    parts = [part for system in systems for part in system.systems()]
    pairs = dict.fromkeys((part.source, part.backbone) for part in parts)
    return [(source, backbone) for source, backbone in pairs if not data.missing(source)]


def set_names(sources: Iterable[tuple[Source, str]], backbone: str | None = None) -> list[str]:
    """Sets of images that some sources need."""
    names: list[str] = []
    for source, seen_by in sources:
        if isinstance(source, Captions) and backbone in (None, seen_by):
            names += [*source.sets, *([ORIGINAL] if source.originals != "none" else [])]
    return [*dict.fromkeys(names)]


def with_features(
    config: ReproductionConfig,
    data: Data,
    systems: Iterable[System],
    sources: Sequence[tuple[Source, str]],
    tell: Callable[[str], None],
) -> Data:
    """Computes what features are missing; the data then knows what each result depends on."""
    described: dict[str, Any] = {"backbones": {}, "sets": {}, "labelled": None}
    for name in dict.fromkeys(backbone for _, backbone in sources):
        backbone = load_backbone(data.backbones[name])
        described["backbones"][name] = feature_folder(backbone)
        tell(f"== features: {data.backbones[name].model} ({name})")
        for each in set_names(sources, name):
            extract(data.sets[each], data.backbones[name], config.in_process, config.pool)
        workers = test_set_workers(config.in_process, config.pool)
        seen = [source for source, seen_by in sources if seen_by == name]
        for test in dict.fromkeys(test for source in seen for test in data.tests_of(source)):
            if "#" not in test:
                loaded = load_test_set(test, data.test_root, (), data.endpoint_url)
                if data.in_tests is not None:
                    loaded = loaded.only(range(min(data.in_tests, len(loaded.labels))))
                stored_features(loaded, backbone, data.store, workers=workers, progress=True)
        if any(isinstance(source, Labels) for source in seen):
            labelled = labelled_set(data)
            known = protocols.known_from(*labelled.labels.shape)
            labelled_features(
                labelled, backbone, data.store, num_views=data.num_views, seed=0,
                workers=workers, known_from=known,
            )  # fmt: skip
            described["labelled"] = [labelled.name, len(labelled.labels)]
    for each in set_names(sources):
        manifest = read_manifest(data.sets[each])
        described["sets"][each] = [to_dict(manifest.settings), manifest.num_images]
    return dataclasses.replace(data, described=described)


def kept_systems(items: Iterable[Item]) -> list[System]:
    """Whose scores are needed beside their numbers."""
    kept = []
    for item in items:
        for system in systems_of(item):
            if system.needs_scores:
                kept += [*system.systems()]
        kept += getattr(item, "systems", ())
    return kept


def wanted_fits(systems: Iterable[System], data: Data, seeds: Sequence[int]) -> list[Fit]:
    """Of all systems that can be trained; what is not trained is fitted once for all seeds."""
    fits: dict[Fit, None] = {}
    for system in systems:
        for part in system.systems():
            if not data.missing(part.source):
                fits.update(dict.fromkeys(part.fits(seeds)))
    return [*fits]


def train_missing(
    config: ReproductionConfig,
    data: Data,
    wanted: Sequence[Fit],
    kept: frozenset[Fit],
    tell: Callable[[str], None],
) -> dict[Fit, str]:
    """Trains what is not done, with a bar of fits; why the others could not be trained."""
    done = read_fits(wanted, data, kept)
    waiting = [fit for fit in wanted if fit not in done]
    tell(f"== fits: {len(wanted)} in all, {len(done)} done")
    groups = in_groups(waiting, data)
    work = FitWork(data, tuple(groups), kept)
    workers = item_workers(config.in_process, config.backbone.device, config.pool)
    with tqdm(total=len(wanted), initial=len(done), unit="fit", desc="training") as bar:
        failed: dict[Fit, str] = {}
        for group, reason in zip(groups, workers(work.load, range(len(groups))) if groups else ()):
            bar.update(len(group))
            if reason:
                if reason not in failed.values():
                    tell(f"{group[0].method} was not trained: {reason}")
                failed.update({fit: reason for fit in group})
    return failed


def summary_line(result: dict[str, Any]) -> str:
    """One JSON line."""
    return json.dumps(result)
