"""What an evaluation reached, as a page shows it; wherever evaluation.json lies."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from t2ipal.evaluation.published import PUBLISHED
from t2ipal.evaluation.runs import EVALUATION, read_evaluation
from t2ipal.report.contents import MethodResult
from t2ipal.store import Store
from t2ipal.store.tables import damaged
from t2ipal.training.recipes import METHODS

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
    evaluation = read_evaluation(store, key)
    try:
        return _measured(evaluation, model)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(damaged(store, key, "evaluate")) from error


def _measured(evaluation: Mapping[str, Any], model: str | None) -> Measured:
    names = tuple(str(name) for name in evaluation["class_names"])
    methods = dict(evaluation["methods"])
    order = sorted(methods, key=lambda name: _number(methods[name]["mean"], -math.inf))
    results = [_result(name, methods[name], evaluation["test_set"], model) for name in order]
    if any(len(result.per_class) != len(names) for result in results):
        raise ValueError(f"Each method must have a number for each of {len(names)} classes.")
    notes = [
        f"mAP is {evaluation['definition']}, mean over classes, in percent; ± is the sample "
        "standard deviation over seeds.",
        "The last epoch is taken; no choice was made on test images.",
        *_what_is_left_out(names, results, evaluation.get("left_out") or ()),
    ]
    return Measured(
        evaluation["test_set"],
        int(evaluation["num_images"]),
        names,
        tuple(results),
        tuple(order),
        tuple(notes),
    )


def _result(
    name: str, numbers: Mapping[str, Any], test_set: str, model: str | None
) -> MethodResult:
    gaps = numbers.get("modality_gap", {})
    return MethodResult(
        METHODS[name].title if name in METHODS else name,
        METHODS[name].description if name in METHODS else name.replace("_", " "),
        _number(numbers["mean"]),
        _number(numbers["std"]),
        numbers["seeds"],
        [_number(value) for value in numbers["mAPs"]],
        [_number(value) for value in numbers["per_class"]],
        published=_published(name, test_set, model) if model else None,
        modality_gap={name.replace("_", " "): cosine for name, cosine in gaps.items()},
    )


def _number(value: float | None, otherwise: float = math.nan) -> float:
    """A number of an evaluation, where there may be none."""
    return otherwise if value is None or math.isnan(value) else float(value)


def _what_is_left_out(
    names: Sequence[str], results: Sequence[MethodResult], images: Sequence[Any]
) -> list[str]:
    """A sentence on classes and one on images that do not count, where there are some."""
    absent = [
        name
        for at, name in enumerate(names)
        if results and all(math.isnan(result.per_class[at]) for result in results)
    ]
    said = []
    if absent:
        said.append(f"No positive in the test set, so in no mean: {_some_of(absent)}.")
    if images:
        left_out = _some_of([str(image) for image in images])
        said.append(f"Images of the test set that could not be used: {left_out}.")
    return said


def _some_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _published(method: str, test_set: str, model: str) -> str | None:
    """The number that was published for a method on this test set and this backbone."""
    title = METHODS[method].title if method in METHODS else method
    backbone = model.removesuffix("-quickgelu").replace("B-16", "B/16").replace("B-32", "B/32")
    for row in PUBLISHED:
        here = row.setting, row.method, row.backbone, row.test_set
        if here == ("zero_shot", title, backbone, test_set):
            return f"{row.mAP:.1f} ({row.backbone})"
    return None
