"""What a page about a run shows, gathered from its store: numbers, losses, images, heatmaps.

Parts that are not there are left out. Draws nothing: `page` does.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from t2ipal.config import require, to_dict
from t2ipal.evaluation.published import PUBLISHED
from t2ipal.evaluation.results import read_evaluation
from t2ipal.evaluation.runs import Recognizers, trained_at
from t2ipal.evaluation.test_sets import TestFeatures
from t2ipal.features.config import BackboneConfig
from t2ipal.methods.recognizer import Recognizer
from t2ipal.pictovoc import WEIGHTS_DIR
from t2ipal.pictovoc.judge import judged_share
from t2ipal.report.config import ReportConfig
from t2ipal.report.contents import (
    Counts,
    Curve,
    HeatmapExample,
    MethodResult,
    Report,
    SheetEntry,
    Trial,
)
from t2ipal.report.page import render_report
from t2ipal.search.trials import read_trials
from t2ipal.store import Run, Store, join_key, read_images, read_rejected, read_run
from t2ipal.training.recipes import METHODS
from t2ipal.training.runs import FINISHED, load_history

REPORT = "report.html"
NAN = float("nan")
NOT_CHOSEN = "not chosen"
"""The filter's reason for captions that passed it and were not needed."""
PACKAGES = ("torch", "diffusers", "open_clip_torch", "ray", "numpy")


@dataclass(frozen=True)
class StoredImages:
    """All images of a run, what was asked of them and, on the embedded world, what is in them."""

    captions: list[str]
    labels: list[tuple[int, ...]]
    images: list[np.ndarray]
    share: float | None
    """Share of named classes that the judge finds."""
    share_by_class: dict[str, float]
    found: np.ndarray | None
    """[images, classes], what the judge sees."""


def read_stored_images(run: Run) -> StoredImages:
    """Reads a run's images and lets the judge look at them where the classes are the world's."""
    shards = [marker.shard for marker in run.markers]
    pairs = [pair for shard in shards for pair in read_images(run.store, shard)]
    captions, labels = [row.caption for row, _ in pairs], [row.labels for row, _ in pairs]
    images = [image for _, image in pairs]
    if (
        run.settings.vocabulary != "voc2007"
        or run.settings.synthesis["pipeline"] not in ("pictovoc", "rendered")
        or not (WEIGHTS_DIR / "judge" / "judge.safetensors").is_file()
        or not images
    ):
        return StoredImages(captions, labels, images, None, {}, None)
    share, by_class, found = judged_share(WEIGHTS_DIR / "judge", np.stack(images), labels)
    return StoredImages(captions, labels, images, share, by_class, found)


def gather_report(
    store: Store,
    recognizers: Recognizers,
    test: TestFeatures,
    config: ReportConfig,
    backbone: BackboneConfig,
    *,
    trained: tuple[Store, str] | None = None,
    seconds: Mapping[str, float] | None = None,
    commands: Sequence[str] = (),
) -> tuple[Report, StoredImages]:
    """Everything that the page of a run shows.

    Args:
        store: home of a run that was evaluated.
        recognizers: of the run.
        test: what heatmaps are drawn on.
        config: how much is shown.
        backbone: of the recognizers.
        trained: store and folder of the recognizers; None: those of the run itself.
        seconds: of each stage, where they are known.
        commands: that make the page again.

    Raises:
        FileNotFoundError: the run is not finished or not evaluated.
        ValueError: the test set has other classes than the run.
    """
    run, evaluation = read_run(store), read_evaluation(store)
    means = {name: numbers["mean"] for name, numbers in evaluation["methods"].items()}
    chosen = "t2ipal" if "t2ipal" in recognizers else max(means, key=lambda name: means[name])
    first = next(iter(recognizers[chosen].values()))
    require(
        test.class_names == first.class_names,
        f"The run knows other classes than test set {test.name}: draw on the evaluated one.",
    )
    stored = read_stored_images(run)
    results = _results(evaluation, backbone)
    titles = [result.name for result in results]
    report = Report(
        title="T2I-PAL: multi-label recognition without a labelled photograph",
        subtitle=(
            f"{run.settings.num_captions} captions, {run.manifest.num_images} synthetic images "
            f"from {run.settings.synthesis['pipeline']}, backbone {backbone.model}, measured on "
            f"{evaluation['num_images']} images of {evaluation['test_set']}."
        ),
        results=results,
        class_names=run.settings.class_names,
        baseline=METHODS["tai_dpt"].title if METHODS["tai_dpt"].title in titles else None,
        judge=None
        if stored.share is None
        else [("overall", stored.share), *stored.share_by_class.items()],
        contact_sheet=_contact_sheet(stored, run.settings.class_names, config.num_captions),
        heatmaps=_heatmaps(first, test, config.num_heatmaps),
        curves=_curves(*(trained or trained_at(store, None)), recognizers),
        trials=[
            Trial(
                t.values,
                t.validation_mAP if t.status == "ok" and t.validation_mAP is not None else NAN,
            )
            for t in read_trials(store, "tune")
        ],
        counts=_counts(run, evaluation["num_images"]),
        seconds=seconds or {},
        settings={
            "synthesis": dict(run.settings.synthesis),
            "backbone": to_dict(backbone),
            "method": to_dict(first.config),
        },
        versions={package: version(package) for package in PACKAGES},
        commands=commands or (f"python jobs/report.py --run {store.uri}",),
        notes=[
            f"mAP is {evaluation['definition']}, mean over classes, in percent; ± is the sample "
            "standard deviation over seeds.",
            "The last epoch is taken; no choice was made on test images.",
        ],
    )
    return report, stored


def write_report(store: Store, report: Report) -> str:
    """Writes report.html into the run; returns where it is."""
    store.write(REPORT, render_report(report).encode())
    return f"{store.uri}/{REPORT}"


def _counts(run: Run, num_test_images: int) -> Counts:
    rejected = Counter(caption.reason for caption in read_rejected(run.store))
    refused = {reason: n for reason, n in rejected.items() if reason != NOT_CHOSEN}
    read = len(run.captions) + rejected.total()
    return Counts(
        captions_read=read,
        captions_kept=read - sum(refused.values()),
        captions_rejected=refused,
        captions_used=run.settings.num_captions,
        images=run.manifest.num_images,
        images_failed=run.manifest.num_failed,
        test_images=num_test_images,
    )


def _results(evaluation: Mapping[str, Any], backbone: BackboneConfig) -> list[MethodResult]:
    methods: dict[str, dict[str, Any]] = evaluation["methods"]
    return [
        MethodResult(
            METHODS[name].title if name in METHODS else name,
            METHODS[name].description if name in METHODS else name.replace("_", " "),
            numbers["mean"],
            numbers["std"],
            numbers["seeds"],
            numbers["mAPs"],
            [NAN if value is None else value for value in numbers["per_class"]],
            published=_published(name, evaluation["test_set"], backbone.model),
            modality_gap={
                name.replace("_", " "): cosine
                for name, cosine in numbers.get("modality_gap", {}).items()
            },
        )
        for name, numbers in sorted(methods.items(), key=lambda item: item[1]["mean"])
    ]


def _published(method: str, test_set: str, model: str) -> str | None:
    """The number that was published for a method on this test set and this backbone."""
    title = METHODS[method].title if method in METHODS else method
    backbone = model.removesuffix("-quickgelu").replace("B-16", "B/16").replace("B-32", "B/32")
    for row in PUBLISHED:
        here = row.setting, row.method, row.backbone, row.test_set
        if here == ("zero_shot", title, backbone, test_set):
            return f"{row.mAP:.1f} ({row.backbone})"
    return None


def _curves(store: Store, trained: str, recognizers: Recognizers) -> list[Curve]:
    """The loss of every trained method over its epochs, the first seed of each."""
    series = []
    for method, by_seed in recognizers.items():
        folder = join_key(trained, f"{method}-seed{next(iter(by_seed))}")
        history = load_history(store, folder)[0] if store.exists(f"{folder}/{FINISHED}") else ()
        if history:
            epochs = [record.epoch + 1.0 for record in history]
            title = METHODS[method].title if method in METHODS else method
            series.append((title, epochs, [record.loss for record in history]))
    return [Curve("Mean loss of each epoch, first seed", "epoch", "loss", series)] if series else []


def _contact_sheet(stored: StoredImages, names: Sequence[str], count: int) -> list[SheetEntry]:
    groups: dict[str, list[int]] = {}
    for index, caption in enumerate(stored.captions):
        groups.setdefault(caption, []).append(index)
    chosen = list(groups.items())[:: max(len(groups) // count, 1)][:count]
    entries = []
    for caption, rows in chosen:
        found = None
        if stored.found is not None:
            found = [[names[c] for c in np.flatnonzero(stored.found[row]).tolist()] for row in rows]
        labels = [names[c] for c in stored.labels[rows[0]]]
        entries.append(SheetEntry(caption, labels, [stored.images[row] for row in rows], found))
    return entries


def _heatmaps(recognizer: Recognizer, test: TestFeatures, count: int) -> list[HeatmapExample]:
    labels = test.features.labels.numpy()
    several = [row for row in range(len(test.previews)) if labels[row].sum() >= 2][:count]
    examples = []
    for row in several:
        one = test.features.rows(slice(row, row + 1))
        maps = recognizer.scorer.heatmap(one.local_features)[0].numpy()
        scores = recognizer.scores(one)[0].numpy()
        side = round(maps.shape[1] ** 0.5)
        order = sorted(np.flatnonzero(labels[row]), key=lambda c: -scores[c])[:4]
        classes = [
            (test.class_names[c], float(scores[c]), maps[c].reshape(side, side)) for c in order
        ]
        true = [test.class_names[c] for c in np.flatnonzero(labels[row])]
        examples.append(HeatmapExample(test.previews[row], true, classes))
    return examples
