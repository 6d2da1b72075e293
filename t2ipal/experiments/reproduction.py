"""The paper's tables and figures by one command: what is missing is made, trained and measured.

The order of things: which systems the items ask for, the sets of images, features, fits, numbers,
pages. Each step finds again what is done.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from t2ipal.captions import load_vocabulary
from t2ipal.config import from_dict, require, to_dict
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.engine.workers import extract, item_workers, test_set_workers
from t2ipal.evaluation.stored_sets import stored_features
from t2ipal.evaluation.test_sets import DATA_SETS
from t2ipal.experiments.config import ReproductionConfig
from t2ipal.experiments.fitting import Fit, FitWork, in_groups, read_fits
from t2ipal.experiments.numbers import Numbers
from t2ipal.experiments.paper import choose_items
from t2ipal.experiments.points import Points
from t2ipal.experiments.rows import Item, System, systems_of
from t2ipal.experiments.sources import (
    NOVEL,
    Captions,
    Data,
    Labels,
    Source,
    load_labelled,
    load_test,
)
from t2ipal.experiments.world_sets import make_sets, set_requests
from t2ipal.experiments.written import Contents, write_pages
from t2ipal.features.extraction import feature_folder
from t2ipal.store import RunTotals, Store, read_manifest

VALIDATION = "pictovoc_validation"
"""Scenes that choose a normalization, a cache's weights, and the best of a line."""
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


def points_of(config: ReproductionConfig, scale: float) -> Points:
    """Where lines are measured; `scale` is the guidance of the main set of images."""
    world = config.on == "pictovoc"
    other = config.other or ("pictovoc_deep" if world else "another encoder")
    points = Points(
        LOOKS if world else (config.on,), default_scale=scale, is_world=world,
        num_captions=config.num_captions, encoders=(config.backbone.model, other),
    )  # fmt: skip
    if not config.quick:
        return points
    return dataclasses.replace(
        points, main_images=2, image_counts=(1, 2, 3), guidance_scales=(1.0, scale, 6.0),
        sweep_images=1, portions=(0.1, 0.5, 0.9), shots=(1, 4, 8), image_weights=(0, 0.6, 1),
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
    given = given_sets(config, store)
    main = given.get("synthetic")
    base = config.synthesis if main is None else from_dict(SynthesisConfig, main[1].synthesis)
    points = points_of(config, base.guidance_scale)
    items = choose_items(config.items, points)
    data = open_data(config, points, store, given)
    systems = [system for item in items for system in systems_of(item)]
    sources = used_sources(items, data)
    if config.on == "pictovoc":
        make_sets(config, points, data.sets, set_names(sources, data), tell)
    data = with_features(config, data, sources, tell)
    seeds = range(config.seeds)
    kept = [fit for system in kept_systems(items) for fit in trainable([system], data, seeds)]
    kept_keys = frozenset(fit.key(data) for fit in kept)
    wanted = trainable(systems, data, seeds)
    failed = train_missing(config, data, wanted, kept_keys, tell)
    done = read_fits(wanted, data, kept_keys)
    numbers = Numbers(data, seeds, done, failed)
    return write_pages(Contents(config, points, items, data, numbers), store)


def given_sets(config: ReproductionConfig, store: Store) -> dict[str, tuple[Store, RunTotals]]:
    """The runs that a user names, by their sets.

    Raises:
        ValueError: for the embedded world; a run of other classes.
        FileNotFoundError: one is not finished.
    """
    if config.on == "pictovoc":
        require(not config.sets, "The embedded world makes its sets itself: leave sets out.")
        require(config.episodes is None, "episodes are MS-COCO's: leave them out.")
        return {}
    require(config.test_root is not None, f"{config.on} needs its folder: give --test-root.")
    known = load_vocabulary(DATA_SETS[config.on].vocabulary or config.on).class_names
    given = {}
    for each in config.sets:
        name, equals, uri = each.partition("=")
        require(bool(equals and name and uri), f"sets must be NAME=RUN, got {each!r}.")
        place = Store(uri, store.endpoint_url)
        settings = read_manifest(place).settings
        require(
            settings.class_names == known,
            f"The set {name} must have the {len(known)} classes of {config.on} in their order; "
            f"{uri} has {len(settings.class_names)}, first {settings.class_names[0]!r}.",
        )
        given[name] = place, settings
    return given


def open_data(
    config: ReproductionConfig,
    points: Points,
    store: Store,
    given: Mapping[str, tuple[Store, RunTotals]],
) -> Data:
    """Where everything lies; nothing is read."""
    world, tests = config.on == "pictovoc", points.test_sets
    backbones = {
        "main": config.backbone,
        "regions": dataclasses.replace(config.backbone, dense_features="regions"),
    }
    if world or config.other is not None:
        backbones["other"] = dataclasses.replace(config.backbone, model=points.encoders[1])
    if world:
        requests = set_requests(config, points)
        sets = {name: Store(f"{store.uri}/sets/{name}", store.endpoint_url) for name in requests}
        images = {name: made.config.images_per_caption for name, (made, _) in requests.items()}
        tests = (*tests, *MORE_TESTS)
    else:
        sets = {name: place for name, (place, _) in given.items()}
        images = {name: settings.images_per_caption for name, (_, settings) in given.items()}
        tests = (*tests, f"{config.on}#novel") if config.on in NOVEL else tests
    return Data(
        store, config.on, sets, images, backbones, tests, config.test_root, config.num_labelled,
        config.num_views, 500 if config.quick else None, config.episodes, store.endpoint_url,
        VALIDATION if world else "",
    )  # fmt: skip


def used_sources(items: Iterable[Item], data: Data) -> list[tuple[Source, str]]:
    """Sources that there are, each with the backbone that sees it."""
    pairs: dict[tuple[Source, str], None] = {}
    for item in items:
        for system in systems_of(item):
            parts = [part for part in system.systems() if not part.missing(data)]
            pairs.update({(part.source, part.backbone): None for part in parts})
        shown = [each for each in getattr(item, "sources", ()) if not data.missing(each, "main")]
        pairs.update({(source, "main"): None for source in shown})
    return [*pairs]


def set_names(sources: Iterable[tuple[Source, str]], data: Data) -> list[str]:
    """Sets of images of some sources, of those that there are."""
    captions = [source for source, _ in sources if isinstance(source, Captions)]
    names = dict.fromkeys(name for source in captions for name in source.all_sets)
    return [name for name in names if name in data.sets]


def with_features(
    config: ReproductionConfig,
    data: Data,
    sources: Sequence[tuple[Source, str]],
    tell: Callable[[str], None],
) -> Data:
    """Computes what features are missing; the data then knows what each result depends on.

    What cannot be read or seen is told, and is lost to its own cells alone.
    """
    described: dict[str, Any] = {"backbones": {}, "sets": {}, "labelled": None, "tests": {}}
    lost: dict[tuple[Source, str], str] = {}

    def lose(which: Iterable[tuple[Source, str]], error: Exception) -> None:
        tell(str(error))
        lost.update({pair: str(error) for pair in which})

    for name in dict.fromkeys(backbone for _, backbone in sources):
        mine = [pair for pair in sources if pair[1] == name]
        tell(f"== features: {data.backbones[name].model} ({name})")
        try:
            backbone = data.load_backbone(name)
        except (ValueError, FileNotFoundError) as error:
            if name == "main":
                raise
            lose(mine, error)
            continue
        described["backbones"][name] = feature_folder(backbone)
        for each in set_names(mine, data):
            extract(data.sets[each], data.backbones[name], config.in_process, config.pool)
        workers = test_set_workers(config.in_process, config.pool)
        tests = [test for source, _ in mine for test in data.tests_of(source)]
        tests += [data.validation_of(source) for source, _ in mine if isinstance(source, Labels)]
        for test in dict.fromkeys(test.partition("#")[0] for test in tests if test):
            loaded = load_test(data, test)
            seen = stored_features(loaded, backbone, data.store, workers=workers, progress=True)
            described["tests"][test] = [test, len(seen.features), len(seen.unreadable)]
        labels = [pair for pair in mine if isinstance(pair[0], Labels)]
        if labels:
            try:
                found = load_labelled(data, name, workers, progress=True)
                described["labelled"] = len(found.texts)
            except (ValueError, FileNotFoundError) as error:
                lose(labels, error)
    for each in set_names(sources, data):
        manifest = read_manifest(data.sets[each])
        described["sets"][each] = [to_dict(manifest.settings), manifest.num_images]
    return dataclasses.replace(data, described=described, lost=lost)


def kept_systems(items: Iterable[Item]) -> list[System]:
    """Whose scores are needed beside their numbers."""
    kept = []
    for item in items:
        for system in systems_of(item):
            if system.needs_scores:
                kept += [*system.systems()]
        kept += getattr(item, "systems", ())
    return kept


def trainable(systems: Iterable[System], data: Data, seeds: Sequence[int]) -> list[Fit]:
    """The fits of all systems whose data is there."""
    fits: dict[Fit, None] = {}
    for system in systems:
        for part in system.systems():
            if not part.missing(data):
                fits.update(dict.fromkeys(part.fits(seeds)))
    return [*fits]


def train_missing(
    config: ReproductionConfig,
    data: Data,
    wanted: Sequence[Fit],
    kept: frozenset[str],
    tell: Callable[[str], None],
) -> dict[Fit, str]:
    """Trains what is not done, with a bar of fits; why the others could not be trained."""
    done = read_fits(wanted, data, kept)
    # Two ways to ask for the same are one fit.
    waiting = {fit.key(data): fit for fit in wanted if fit not in done}
    total = len({fit.key(data) for fit in wanted})
    tell(f"== fits: {total} in all, {total - len(waiting)} done")
    groups = in_groups([*waiting.values()], data)
    work = FitWork(data, tuple(groups), kept)
    workers = item_workers(config.in_process, "fits", config.backbone.device, config.pool)
    failed: dict[str, str] = {}
    with tqdm(total=total, initial=total - len(waiting), unit="fit", desc="training") as bar:
        for group, reason in zip(groups, workers(work.load, range(len(groups))) if groups else ()):
            bar.update(len(group))
            if reason:
                if reason not in failed.values():
                    tell(f"{group[0].method} was not trained: {reason}")
                failed.update({fit.key(data): reason for fit in group})
    return {fit: failed[fit.key(data)] for fit in wanted if fit.key(data) in failed}
