"""The recognizers of the reproduction: each trained once, measured, and written down.

A fit is a recognizer with one seed. Fits that learn from the same data and can be stacked are
trained at once. What is done lies in the store under a name that differs wherever the result would,
so the same fit stands in many tables, and a run that was broken off goes on.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from t2ipal.config import fingerprint, override, to_dict
from t2ipal.evaluation.cache_weights import RATIOS, SHARPNESSES, with_chosen_weights
from t2ipal.evaluation.evaluate import predict
from t2ipal.evaluation.metrics import accuracy, average_precision
from t2ipal.evaluation.test_sets import TestFeatures
from t2ipal.experiments.sources import Captions, Data, Labels, Source
from t2ipal.methods.recognizer import FULL, Recognizer
from t2ipal.methods.tip_adapter import TipAdapterConfig
from t2ipal.store import Store, json_bytes, read_arrays, write_arrays
from t2ipal.training.captions import captions_for, captions_key
from t2ipal.training.loop import fit
from t2ipal.training.recipes import METHODS, Recipe, recipe
from t2ipal.training.stacked import Stack, stack_key

AT_ONCE = 24
"""Fits of a group, at most: what is lost where a worker is."""
FITS, KEPT = "fits", "kept"
"""Folders of the store: what each fit measured; scores and recognizers that others need."""
Changes = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Fit:
    """One recognizer."""

    method: str
    """Name of a recipe."""
    source: Source
    seed: int
    changes: Changes = ()
    """Of the recipe, as dotted names and values."""
    backbone: str = "main"
    """Name of one of the reproduction's."""

    def key(self, data: Data) -> str:
        """Differs wherever the result would; two ways to ask for the same have one."""
        return _key(self, data)

    def recipe(self, data: Data) -> Recipe:
        """Its settings."""
        names = data.vocabulary(self.source)
        start = recipe(self.method, data.schedule, *names, self.seed)
        return override(start, dict(self.changes))

    def chosen_on(self, data: Data) -> str:
        """The images on which weights are chosen after training; empty where none are chosen."""
        has_weights = METHODS[self.method].config is TipAdapterConfig
        if not has_weights or not isinstance(self.source, Labels):
            return ""
        return data.validation_of(self.source)


@lru_cache(maxsize=4096)
def _key(fit: Fit, data: Data) -> str:
    made = to_dict(fit.recipe(data))
    source = dataclasses.asdict(fit.source)
    for later in ("first", "choice"):  # without these, keys are as before there were such fields
        if source.get(later) is None:
            source.pop(later, None)
    facts = [made, source, fit.seed, data.facts(fit.source, fit.backbone)]
    # These are added where they change something, so that all other fits keep their keys.
    if chosen_on := fit.chosen_on(data):
        seen = data.described["tests"].get(chosen_on.partition("#")[0])
        facts += [chosen_on, seen, RATIOS, SHARPNESSES]
    if isinstance(fit.source, Captions) and (draw := fit.source.draw(fit.seed)):
        facts += [f"draw {draw}"]
    return fingerprint(facts)


@dataclass(frozen=True)
class Measured:
    """What a fit reached."""

    values: Mapping[str, float]
    """Test set -> mAP, or accuracy where that is its measure; percent."""
    normalized: Mapping[str, float]
    """The same with each image's scores fully normalized."""
    per_class: Mapping[str, tuple[float, ...]]
    seconds: float
    """Of training, its share where several were trained at once."""


@dataclass(frozen=True)
class FitWork:
    """What a worker needs: groups of fits, and where everything lies."""

    data: Data
    groups: tuple[tuple[Fit, ...], ...]
    kept: frozenset[str]
    """Keys of those whose scores and recognizer are stored too."""

    def load(self) -> Callable[[int], str]:
        """Trains and measures one group by its number; says why where it cannot be trained."""

        def work(number: int) -> str:
            try:
                train_group(self.groups[number], self.data, self.kept)
            except ValueError as error:  # of its own data or settings: the others go on
                return str(error)
            return ""

        return work


def in_groups(fits: Sequence[Fit], data: Data) -> list[tuple[Fit, ...]]:
    """Fits that are trained at once; the largest groups first, so that workers end together."""
    groups: dict[Any, list[Fit]] = {}
    for each in fits:
        made = each.recipe(data)
        stacks = hasattr(made.method, "numbers") and made.training.num_epochs > 0
        stacks &= made.training.optimizer == "sgd"
        shared = (stack_key(made), captions_key(made), each.seed) if stacks else each
        groups.setdefault((each.source, each.backbone, shared), []).append(each)
    cut = [
        tuple(group[start : start + AT_ONCE])
        for group in groups.values()
        for start in range(0, len(group), AT_ONCE)
    ]
    return sorted(cut, key=len, reverse=True)


def train_group(fits: Sequence[Fit], data: Data, kept: frozenset[str]) -> None:
    """Trains fits of one group, and writes down what each reached."""
    first = fits[0]
    backbone = data.load_backbone(first.backbone)
    tests = data.tests(first.source, first.backbone)
    recipes = [each.recipe(data) for each in fits]
    features = None
    if METHODS[first.method].learns_from != "nothing":
        features = data.training(first.source, first.seed, first.backbone)
        features = captions_for(recipes[0], features, backbone)
    started = time.monotonic()
    methods = [made.method.build(backbone, made.training.seed) for made in recipes]
    if features is None:
        recognizers = [method.export() for method in methods]
    elif len(fits) > 1:
        stack = Stack(methods, [made.training for made in recipes], features)
        stack.train()
        recognizers = [stack.recognizer(trial) for trial in range(len(fits))]
    else:
        recognizers = [fit(methods[0], features, recipes[0].training).recognizer]
    if chosen_on := first.chosen_on(data):
        seen = data.test(chosen_on, first.backbone).features
        recognizers = with_chosen_weights(recognizers, seen)
    seconds = (time.monotonic() - started) / len(fits)
    found = {test.name: predict(recognizers, test.features) for test in tests}
    for at, each in enumerate(fits):
        scores = {name: rows[at] for name, rows in found.items()}
        _write(each, data, tests, scores, seconds, recognizers[at], kept)


def _write(
    done: Fit,
    data: Data,
    tests: Sequence[TestFeatures],
    scores: Mapping[str, NDArray[np.float32]],
    seconds: float,
    recognizer: Recognizer,
    kept: frozenset[str],
) -> None:
    key, names = done.key(data), data.vocabulary(done.source)[0]
    values, normalized, per_class = {}, {}, {}
    for test in tests:
        mine = columns_of(test, names, scores[test.name])
        values[test.name], per_class[test.name] = measure(test, mine, data.measure(test.name))
        if len(test.class_names) > 1:
            whole = FULL(torch.from_numpy(scores[test.name])).numpy()
            changed = columns_of(test, names, whole)
            normalized[test.name] = measure(test, changed, data.measure(test.name))[0]
    if key in kept:
        recognizer.save(data.store, f"{KEPT}/{key}")
        write_arrays(data.store, _scores_key(key), dict(scores))  # last: it is kept
    facts = {"fit": dataclasses.asdict(done), "seconds": seconds, "values": values}
    more: dict[str, Any] = {"normalized": normalized, "per_class": per_class}
    if chosen_on := done.chosen_on(data):
        config = recognizer.config
        weights = {"residual_ratio": config.residual_ratio, "sharpness": config.sharpness}
        more["chosen"] = {"on": chosen_on, **weights}
    data.store.write(f"{FITS}/{key}.json", json_bytes({**facts, **more}))  # last: it is done


def columns_of(
    test: TestFeatures, class_names: Sequence[str], scores: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The scores of a test set's classes, which may be some of a recognizer's."""
    if tuple(test.class_names) == tuple(class_names):
        return scores
    return scores[:, [class_names.index(name) for name in test.class_names]]


def measure(
    test: TestFeatures, scores: NDArray[np.float32], kind: str
) -> tuple[float, tuple[float, ...]]:
    """mAP, or accuracy, and the average precision of each class; percent."""
    labels = test.features.labels.cpu().numpy()
    per_class = average_precision(scores, labels, difficult=test.difficult, skip_absent=True)
    value = accuracy(scores, labels) if kind == "accuracy" else float(np.nanmean(per_class))
    return value, tuple(np.nan_to_num(per_class, nan=-1.0).tolist())


def _scores_key(key: str) -> str:
    return f"{KEPT}/{key}.safetensors"


def read_scores(done: Fit, data: Data) -> dict[str, NDArray[np.float32]]:
    """Test set -> scores of a fit that was kept."""
    return dict(read_arrays(data.store, _scores_key(done.key(data)))[0])


def read_fits(fits: Sequence[Fit], data: Data, kept: frozenset[str]) -> dict[Fit, Measured]:
    """What is done of some fits; one that must be kept and was not is not done."""
    place: Store = data.store
    there = {*place.list(f"{FITS}/")}
    scored = {*place.list(f"{KEPT}/")}
    wanted = {each: each.key(data) for each in dict.fromkeys(fits)}
    done = {
        each: key
        for each, key in wanted.items()
        if f"{FITS}/{key}.json" in there and (key not in kept or _scores_key(key) in scored)
    }

    def read(key: str) -> Measured:
        values = json.loads(place.read(f"{FITS}/{key}.json"))
        per_class = {name: tuple(each) for name, each in values["per_class"].items()}
        return Measured(values["values"], values["normalized"], per_class, values["seconds"])

    with ThreadPoolExecutor(8) as pool:
        return dict(zip(done, pool.map(read, done.values())))
