"""What an evaluation reached, as a page shows it; wherever evaluation.json lies."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from t2ipal.config import Bounds, NonNegativeFloat, NonNegativeInt, from_dict, listed, require
from t2ipal.evaluation.published import PUBLISHED
from t2ipal.evaluation.reading import Unreadable
from t2ipal.evaluation.results import EVALUATION, read_evaluation
from t2ipal.report.contents import MethodResult
from t2ipal.store import Store, damaged
from t2ipal.store.records import known
from t2ipal.training.recipes import METHODS

Percent = Annotated[float, Bounds(ge=0, lt=101)]
"""A sum of floats may come out above 100."""
MAX_NAMES = 10
"""Classes or files that a note names; it counts the others."""


@dataclass(frozen=True)
class Measured:
    """An evaluation of a run."""

    test_set: str
    num_images: int
    class_names: tuple[str, ...]
    results: tuple[MethodResult, ...]
    """From the lowest mAP to the highest."""
    methods: tuple[str, ...]
    """Our names of these methods, in the same order."""
    notes: tuple[str, ...]
    """What the numbers are of."""
    measure: str = "mAP"
    """What is measured; or accuracy."""


@dataclass(frozen=True)
class _Numbers:
    """What evaluation.json says of a method."""

    mean: Percent | None
    std: NonNegativeFloat | None
    seeds: tuple[int, ...]
    mAPs: tuple[Percent | None, ...]
    per_class: tuple[Percent | None, ...]
    modality_gap: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class _Evaluation:
    """What it says of the test set."""

    test_set: str
    num_images: NonNegativeInt
    definition: str
    class_names: tuple[str, ...]
    methods: Mapping[str, Any]
    measure: str = "mAP"
    absent_classes: tuple[str, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()


def read_measured(store: Store, key: str = EVALUATION, model: str | None = None) -> Measured:
    """Reads an evaluation.

    Args:
        store: where it lies.
        key: of the evaluation there.
        model: the backbone, whose published numbers are put beside ours; None: not known.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    content = read_evaluation(store, key)
    try:
        evaluation = from_dict(_Evaluation, known(_Evaluation, content))
        methods = {
            name: from_dict(_Numbers, known(_Numbers, numbers))
            for name, numbers in evaluation.methods.items()
        }
        order = sorted(methods, key=lambda name: methods[name].mean or 0.0)
        results = [_result(name, methods[name], evaluation, model) for name in order]
    except (TypeError, ValueError) as error:
        raise ValueError(damaged(store, key, "evaluate")) from error
    return Measured(
        evaluation.test_set,
        evaluation.num_images,
        evaluation.class_names,
        tuple(results),
        tuple(order),
        tuple(_notes(evaluation)),
        evaluation.measure,
    )


def _result(
    name: str, numbers: _Numbers, evaluation: _Evaluation, model: str | None
) -> MethodResult:
    require(
        len(numbers.per_class) == len(evaluation.class_names),
        f"{name} must have a number for each of {len(evaluation.class_names)} classes.",
    )
    return MethodResult(
        METHODS[name].title if name in METHODS else name,
        METHODS[name].description if name in METHODS else name.replace("_", " "),
        _or_nan(numbers.mean),
        _or_nan(numbers.std),
        numbers.seeds,
        [_or_nan(value) for value in numbers.mAPs],
        [_or_nan(value) for value in numbers.per_class],
        published=_published(name, evaluation.test_set, model) if model else None,
        modality_gap={n.replace("_", " "): cosine for n, cosine in numbers.modality_gap.items()},
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _notes(evaluation: _Evaluation) -> Iterator[str]:
    over = ", mean over classes" if evaluation.measure == "mAP" else ""
    yield (
        f"{evaluation.measure} is {evaluation.definition}{over}, in percent; ± is the sample "
        "standard deviation over seeds."
    )
    yield "The last epoch is taken; no choice was made on test images."
    if absent := evaluation.absent_classes:
        yield f"Left out of the mean, for no image shows them: {listed(absent, MAX_NAMES)}."
    if evaluation.unreadable:
        files = [f"{each.file} ({each.reason})" for each in evaluation.unreadable]
        yield f"Images left out, for they cannot be read: {listed(files, MAX_NAMES)}."


def _published(method: str, test_set: str, model: str) -> str | None:
    """The number that was published for a method on this test set and this backbone."""
    title = METHODS[method].title if method in METHODS else method
    backbone = model.removesuffix("-quickgelu").replace("B-16", "B/16").replace("B-32", "B/32")
    for row in PUBLISHED:
        here = row.setting, row.method, row.backbone, row.test_set
        if here == ("zero_shot", title, backbone, test_set):
            return f"{row.mAP:.1f} ({row.backbone})"
    return None
