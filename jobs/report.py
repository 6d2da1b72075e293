"""One self-contained HTML page about a run: results, contact sheet, heatmaps, settings.

    python jobs/report.py --run runs/demo

Reads what the other jobs left in the run's folder; parts that are not there are left out. Writes
report.html there. The last line of the output is a JSON summary.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import tyro

from jobs._job import run_job
from jobs.evaluate import find_recognizers, load_same_backbone
from t2ipal.config import require, to_dict
from t2ipal.features import BackboneConfig
from t2ipal.pictovoc import WEIGHTS_DIR
from t2ipal.pictovoc.checks import judged_share
from t2ipal.recognizer import Recognizer
from t2ipal.report import (
    Counts,
    HeatmapExample,
    MethodResult,
    Report,
    SheetEntry,
    Trial,
    write_report,
)
from t2ipal.store import Store, read_images, read_manifest, read_stored_captions
from t2ipal.test_sets import TestFeatures, test_set_features

FLAT = tyro.conf.arg(name="")
DESCRIPTIONS = {
    "zsclip": 'zero-shot CLIP, "a photo of a {}."',
    "zsclip_local": "zero-shot CLIP with local scores",
    "tai": "global prompts learned from captions",
    "tai_dpt": "global and local prompts learned from captions",
    "tai_dpt_adapter": "TaI-DPT with the adapter, captions only",
    "t2ipal": "prompts and adapter learned from captions and synthetic images",
    "t2ipal_no_adapter": "T2I-PAL without the adapter",
    "t2ipal_images_only": "T2I-PAL from synthetic images alone",
    "t2ipal_one_image": "T2I-PAL with one image per caption",
}
TITLES = {"zsclip": "ZSCLIP", "zsclip_local": "ZSCLIP + local", "tai": "TaI", "tai_dpt": "TaI-DPT"}
TITLES |= {"tai_dpt_adapter": "TaI-DPT + adapter", "t2ipal": "T2I-PAL"}


@dataclass(frozen=True)
class Options:
    """Draws the page of a run."""

    run: str
    """Folder of the run."""
    test_set: str | None = None
    """Test set that the heatmaps are drawn on; None: the one that was evaluated."""
    test_root: str | None = None
    """Folder of a real test set."""
    num_captions: int = 12
    """Captions on the contact sheet."""
    num_heatmaps: int = 6
    """Test images with heatmaps."""
    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)


@dataclass(frozen=True)
class StoredImages:
    """All images of a run, what was asked of them and, on the embedded world, what is in them."""

    captions: list[str]
    labels: list[list[int]]
    images: list[np.ndarray]
    share: float | None
    """Share of named classes that the judge finds."""
    share_by_class: dict[str, float]
    found: np.ndarray | None
    """[images, classes], what the judge sees."""


def read_stored_images(store: Store) -> StoredImages:
    """Reads a run's images and lets the judge look at them where the classes are the world's."""
    manifest = read_manifest(store)
    pairs = [pair for shard in manifest["shards"] for pair in read_images(store, shard["shard"])]
    captions, labels = [row["caption"] for row, _ in pairs], [row["labels"] for row, _ in pairs]
    images = [image for _, image in pairs]
    if (
        manifest["settings"]["vocabulary"] != "voc2007"
        or not (WEIGHTS_DIR / "judge" / "judge.safetensors").is_file()
        or not images
    ):
        return StoredImages(captions, labels, images, None, {}, None)
    share, by_class, found = judged_share(WEIGHTS_DIR / "judge", np.stack(images), labels)
    return StoredImages(captions, labels, images, share, by_class, found)


def _contact_sheet(stored: StoredImages, names: list[str], count: int) -> list[SheetEntry]:
    groups: dict[str, list[int]] = {}
    for index, caption in enumerate(stored.captions):
        groups.setdefault(caption, []).append(index)
    chosen = list(groups.items())[:: max(len(groups) // count, 1)][:count]
    entries = []
    for caption, rows in chosen:
        found = None
        if stored.found is not None:
            found = [[names[c] for c in np.flatnonzero(stored.found[row])] for row in rows]
        labels = [names[c] for c in stored.labels[rows[0]]]
        entries.append(SheetEntry(caption, labels, [stored.images[row] for row in rows], found))
    return entries


def _heatmaps(recognizer: Recognizer, test: TestFeatures, count: int) -> list[HeatmapExample]:
    labels = test.features.labels.numpy()
    several = [row for row in range(len(test.previews)) if labels[row].sum() >= 2][:count]
    examples = []
    for row in several:
        one = test.features.rows(slice(row, row + 1))
        maps = recognizer.heatmap(one.local_features)[0].numpy()
        scores = recognizer.predict(one)[0].numpy()
        side = round(maps.shape[1] ** 0.5)
        order = sorted(np.flatnonzero(labels[row]), key=lambda c: -scores[c])[:4]
        classes = [
            (test.class_names[c], float(scores[c]), maps[c].reshape(side, side)) for c in order
        ]
        true = [test.class_names[c] for c in np.flatnonzero(labels[row])]
        examples.append(HeatmapExample(test.previews[row], true, classes))
    return examples


def _results(evaluation: dict[str, Any]) -> list[MethodResult]:
    methods: dict[str, dict[str, Any]] = evaluation["methods"]
    return [
        MethodResult(
            TITLES.get(name, name),
            DESCRIPTIONS.get(name, name.replace("_", " ")),
            numbers["mean"],
            numbers["std"],
            numbers["seeds"],
            numbers["mAPs"],
            numbers["per_class"],
            modality_gap={
                name.replace("_", " "): cosine
                for name, cosine in numbers.get("modality_gap", {}).items()
            },
        )
        for name, numbers in sorted(methods.items(), key=lambda item: item[1]["mean"])
    ]


def _read(path: Path, name: str, job: str) -> dict[str, Any]:
    """What a job left in a file of JSON, under this name among others."""
    try:
        content = json.loads(path.read_text())
    except ValueError:
        content = None
    if not isinstance(content, dict) or name not in content:
        raise ValueError(f"{path} is damaged. Remove it and run {job} again.")
    return content


def _trials(path: Path) -> list[Trial]:
    if not path.is_file():
        return []
    rows = _read(path, "trials", "jobs/tune.py")["trials"]
    scores = [
        float("nan") if row["validation_mAP"] is None else row["validation_mAP"] for row in rows
    ]
    return [Trial(row["values"], score) for row, score in zip(rows, scores, strict=True)]


def run(
    options: Options,
    *,
    test: TestFeatures | None = None,
    stored: StoredImages | None = None,
    seconds: dict[str, float] | None = None,
    commands: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes the page; returns where it is and what it says in short."""
    for name in ("num_captions", "num_heatmaps"):
        value = getattr(options, name)
        require(value > 0, f"{name} must be > 0, got {value}.")
    run_dir, store = Path(options.run), Store(options.run)
    manifest = read_manifest(store)
    names = manifest["class_names"]
    evaluation_path = run_dir / "evaluation.json"
    if not evaluation_path.is_file():
        raise FileNotFoundError(f"No evaluation.json in {run_dir}. Run jobs/evaluate.py first.")
    evaluation = _read(evaluation_path, "methods", "jobs/evaluate.py")
    recognizers = find_recognizers(run_dir)
    best = max(evaluation["methods"], key=lambda name: evaluation["methods"][name]["mean"])
    first = next(iter(recognizers["t2ipal" if "t2ipal" in recognizers else best].values()))
    if test is None:
        backbone = load_same_backbone(run_dir, options.backbone)
        test_set = options.test_set or evaluation["test_set"]
        test = test_set_features(test_set, options.test_root, backbone)
    require(
        test.class_names == first.config.class_names,
        f"The run knows other classes than test set {test.name}: draw on the evaluated one.",
    )
    stored = stored or read_stored_images(store)
    captions = read_stored_captions(store, "all")
    reasons = Counter(r for r in captions["reason"].to_pylist() if r)
    kept = len(captions) - sum(n for reason, n in reasons.items() if reason != "not chosen")
    results = _results(evaluation)
    judge = (
        [("overall", stored.share), *stored.share_by_class.items()]
        if stored.share is not None
        else None
    )
    settings = manifest["settings"]
    report = Report(
        title="T2I-PAL: multi-label recognition without a labelled photograph",
        subtitle=(
            f"{settings['num_captions']} captions, {manifest['num_images']} synthetic images from "
            f"{settings['synthesis']['pipeline']}, backbone {options.backbone.model}, measured on "
            f"{evaluation['num_images']} images of {evaluation['test_set']}."
        ),
        results=results,
        class_names=names,
        baseline="TaI-DPT" if any(r.name == "TaI-DPT" for r in results) else None,
        judge=judge,
        contact_sheet=_contact_sheet(stored, names, options.num_captions),
        heatmaps=_heatmaps(first, test, options.num_heatmaps),
        trials=_trials(run_dir / "tune" / "trials.json"),
        counts=Counts(
            captions_read=len(captions),
            captions_kept=kept,
            captions_rejected={r: n for r, n in reasons.items() if r != "not chosen"},
            captions_used=settings["num_captions"],
            images=manifest["num_images"],
            images_failed=manifest["num_failed"],
            test_images=evaluation["num_images"],
        ),
        seconds=seconds or {},
        settings={
            "synthesis": settings["synthesis"],
            "backbone": to_dict(options.backbone),
            "method": to_dict(first.config),
        },
        versions={p: version(p) for p in ("torch", "diffusers", "open_clip_torch", "ray", "numpy")},
        commands=commands or (f"python jobs/report.py --run {options.run}",),
        notes=[
            f"mAP is {evaluation['definition']}, mean over classes, in percent; ± is the sample "
            "standard deviation over seeds.",
            "The last epoch is taken; no choice was made on test images.",
        ],
    )
    path = run_dir / "report.html"
    write_report(path, report)
    return {"report": str(path), "judge_share": stored.share, "num_images": manifest["num_images"]}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    torch.set_num_threads(max(torch.get_num_threads() // 2, 1))
    summary = run(tyro.cli(Options, args=arguments, description=__doc__))
    print(json.dumps(summary))
    return summary


if __name__ == "__main__":
    run_job(main)
