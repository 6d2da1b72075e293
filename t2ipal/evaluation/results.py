"""What the recognizers of a run reach on a test set: evaluation.json."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2ipal.config import require
from t2ipal.evaluation.config import EvaluationOptions
from t2ipal.evaluation.evaluate import evaluate, predict, summarize
from t2ipal.evaluation.metrics import accuracy, class_accuracy, shown_classes
from t2ipal.evaluation.modality_gap import ModalityGap, modality_gap
from t2ipal.evaluation.runs import Recognizers, require_same_classes
from t2ipal.evaluation.test_sets import TestFeatures, measure_of
from t2ipal.features.sets import TrainingFeatures
from t2ipal.methods.recognizer import Recognizer
from t2ipal.methods.t2ipal import T2IPALScorer
from t2ipal.store import Store, damaged, json_bytes, read_json

EVALUATION = "evaluation.json"
ACCURACY = "top-1 accuracy: the highest score is that of the image's one class"
"""The definition in words."""


def evaluate_run(
    store: Store,
    recognizers: Recognizers,
    test: TestFeatures,
    options: EvaluationOptions,
    data: TrainingFeatures | None = None,
) -> dict[str, Any]:
    """Measures every recognizer of a run and writes evaluation.json; returns what it holds."""
    result = measure(recognizers, test, options, data)
    write_evaluation(store, result)
    return result


def require_measurable(
    recognizers: Recognizers,
    test_set: str,
    class_names: Sequence[str],
    labels: ArrayLike,
    options: EvaluationOptions,
) -> list[str]:
    """The classes that `measure` will leave out; what it would refuse is refused before features.

    Raises:
        ValueError: a recognizer knows other classes, or no image shows one of them.
    """
    require_same_classes(recognizers, test_set, class_names)
    if measure_of(test_set) == "accuracy":
        return []
    shown = shown_classes(labels, class_names, options.skip_absent)
    return [name for name, here in zip(class_names, shown) if not here]


def measure(
    recognizers: Recognizers,
    test: TestFeatures,
    options: EvaluationOptions,
    data: TrainingFeatures | None = None,
) -> dict[str, Any]:
    """What evaluation.json holds of some recognizers.

    Args:
        recognizers: of a run.
        test: the test set, seen by their backbone.
        options: what is measured.
        data: the run's captions and images, where the modality gap is wanted.

    Raises:
        ValueError: a recognizer knows other classes than the test set, no image shows one of them,
            or there is no image for the modality gap. Where accuracy is measured, an image shows
            no class or several.
    """
    require_same_classes(recognizers, test.name, test.class_names)
    methods: dict[str, Any] = {}
    definition, kind = "", measure_of(test.name)
    shown = np.ones(len(test.class_names), bool)
    every = [recognizer for by_seed in recognizers.values() for recognizer in by_seed.values()]
    scores = iter(predict(every, test.features))
    for method, by_seed in recognizers.items():
        values, by_class, definitions = zip(
            *(_measured(one, test, next(scores), options) for one in by_seed.values())
        )
        summary = summarize(values, list(by_seed))
        per_class = np.mean(by_class, axis=0)
        shown = ~np.isnan(per_class)
        numbers = [
            value if here else None for value, here in zip(per_class.round(3).tolist(), shown)
        ]
        methods[method] = {**asdict(summary), "per_class": numbers}
        if options.modality_gap and (gaps := _gaps(by_seed, test, data)):
            methods[method]["modality_gap"] = mean_gap(gaps)
        definition = definitions[0]
    is_over_classes = kind == "mAP"
    absent = [n for n, here in zip(test.class_names, shown) if is_over_classes and not here]
    left_out = [
        f"{len(some)} of {total:,} {what}"
        for some, total, what in (
            (absent, len(shown), "classes left out that no image shows"),
            (test.unreadable, test.num_listed, "images left out that cannot be read"),
        )
        if some
    ]
    return {
        "test_set": test.name,
        "num_images": len(test.features),
        "definition": ", ".join([definition, *left_out]),
        "class_names": list(test.class_names),
        "methods": methods,
        **({} if is_over_classes else {"measure": kind}),
        **({"absent_classes": absent} if absent else {}),
        **({"unreadable": [asdict(each) for each in test.unreadable]} if test.unreadable else {}),
    }


def _measured(
    recognizer: Recognizer,
    test: TestFeatures,
    scores: NDArray[np.float32],
    options: EvaluationOptions,
) -> tuple[float, Sequence[float], str]:
    """What the test set's measure is, the same of each class, and its definition."""
    if measure_of(test.name) == "accuracy":
        labels = test.features.labels.cpu().numpy()
        return accuracy(scores, labels), class_accuracy(scores, labels).tolist(), ACCURACY
    found = evaluate(
        recognizer,
        test.features,
        scores=scores,
        difficult=test.difficult,
        skip_difficult=options.skip_difficult,
        eleven_point=options.eleven_point,
        skip_absent=options.skip_absent,
    )
    return found.mAP, found.average_precision, found.definition


def write_evaluation(store: Store, result: dict[str, Any]) -> None:
    """Writes evaluation.json, in place of one that is there."""
    store.write(EVALUATION, json_bytes(result))


def _gaps(
    by_seed: dict[int, Recognizer],
    test: TestFeatures,
    data: TrainingFeatures | None,
) -> list[ModalityGap]:
    """Of each seed; none for a method that has no class embeddings."""
    if data is None or data.images is None:
        raise ValueError("The modality gap needs images, the run has none.")
    sets = test.features, data.texts, data.images
    scorers = [r.scorer for r in by_seed.values() if isinstance(r.scorer, T2IPALScorer)]
    return [modality_gap(scorer, *sets) for scorer in scorers]


def summarize_evaluation(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The numbers of each method without those of its classes, and what they leave out."""
    names = {"images": "unreadable", "classes": "absent_classes"}
    left_out = {what: len(result[name]) for what, name in names.items() if name in result}
    keys = ("mean", "std", "seeds", "modality_gap")
    return {
        method: {key: numbers[key] for key in keys if key in numbers}
        | ({"left_out": left_out} if left_out else {})
        for method, numbers in result["methods"].items()
    }


def describe_evaluation(result: dict[str, Any]) -> str:
    """A line for each method, the best last."""
    kind = result.get("measure", "mAP")
    lines = [f"{'method':<28}{kind:>9}{'std':>7}  seeds   ({result['definition']})"]
    for name, numbers in sorted(result["methods"].items(), key=lambda item: item[1]["mean"]):
        seeds = len(numbers["seeds"])
        lines.append(f"{name:<28}{numbers['mean']:9.2f}{numbers['std']:7.2f}  {seeds}")
    return "\n".join(lines)


def mean_gap(gaps: Sequence[ModalityGap]) -> dict[str, float | None]:
    """Each cosine's mean over seeds; None without an adapter."""
    columns = {f.name: [getattr(gap, f.name) for gap in gaps] for f in fields(ModalityGap)}
    return {
        name: None if None in column else round(statistics.fmean(column), 4)
        for name, column in columns.items()
    }


def read_evaluation(store: Store, key: str = EVALUATION) -> dict[str, Any]:
    """What `write_evaluation` wrote.

    Raises:
        FileNotFoundError: the run was not evaluated.
        ValueError: the file is damaged.
    """
    if not store.exists(key):
        raise FileNotFoundError(f"No {key} in {store.uri}. Run jobs/evaluate.py first.")
    content = read_json(store, key, "evaluate")
    require("methods" in content, damaged(store, key, "evaluate"))
    return content
