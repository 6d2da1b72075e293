"""Is it worth choosing among synthetic images, or drawing the poor ones again? Several seeds.

Takes the synthetic images of `claims` as a pool: a sample depends on its caption and number alone,
so the pool's further images stand for those that a repair would draw. Each way of choosing is told
to use so many images of each caption; T2I-PAL is trained on what it keeps. `benchmarks/choices.py`
runs it.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from t2ipal.config import fingerprint, require, to_dict
from t2ipal.experiments.claims import judged
from t2ipal.experiments.claims_table import Setting, by_seed, number, paired, table_line
from t2ipal.experiments.fits import Task, train_all
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.extraction import feature_folder
from t2ipal.features.reading import read_hashes, training_features_of
from t2ipal.features.sets import TrainingFeatures
from t2ipal.places import LocalPath
from t2ipal.selection.choosing import ChoiceConfig, kept_images
from t2ipal.selection.quality import (
    ImageQuality,
    QualityConfig,
    measure_quality,
    zero_shot_embeddings,
)
from t2ipal.selection.repairing import lacking_images
from t2ipal.store import ChoiceRow, Sample, Store, read_run, write_choice
from t2ipal.training.plans import plan_runs

POOL = "synthetic"


@dataclass(frozen=True)
class Way:
    """A way of choosing among the first images of every caption."""

    name: str
    first: int
    """Images drawn of each caption."""
    choice: ChoiceConfig = field(default_factory=lambda: ChoiceConfig(min_found=0.0))
    repair_rounds: int = 0
    """Times that captions with too few good images get as many more."""
    wanted: int = 0
    """Good images that a repair wants of each caption."""


@dataclass(frozen=True)
class ChoicesConfig:
    """Compares ways of choosing images."""

    claims: LocalPath = "runs/claims"
    """Output folder of benchmarks/claims.py."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Training seeds."""
    kept: int = 4
    """Images of each caption that a choice ends with, and that a repair begins with."""
    pools: tuple[int, ...] = (1, 2)
    """Smaller pools, the first so many images of each caption, for the default choice."""
    test_sets: tuple[str, ...] = ("pictovoc", "pictovoc_shifted")
    """The test sets whose features benchmarks/claims.py stored."""
    num_workers: int | None = None
    """Processes that train; None: one per CPU; 0: all in this process."""
    quality: QualityConfig = field(default_factory=QualityConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)


def ways(kept: int, pools: Sequence[int], pool: int) -> list[Way]:
    """What is compared; the first one is what the others are measured against."""
    best, found = ChoiceConfig(min_found=0.0, best=kept), ChoiceConfig(min_found=0.5)
    return [
        Way(f"first {kept}", kept),
        Way(f"all {pool}", pool),
        Way(f"best {kept} of {pool}", pool, best),
        *(Way(f"all of {few} with half of the classes found", few, found) for few in pools),
        Way(f"all of {pool} with half of the classes found", pool, found),
        Way(f"best {kept} of {kept} and a repair", kept, best, pool - kept, kept),
    ]


def drawn_only(data: TrainingFeatures, drawn: Bool[Tensor, " images"]) -> TrainingFeatures:
    """The captions with those images alone, as a run that has no others would read them."""
    assert data.images is not None
    rows, place = data.image_of_caption, drawn.cumsum(dim=0) - 1
    there = (rows >= 0) & drawn[rows.clamp(min=0)]
    return TrainingFeatures(
        data.texts, data.images.subset(drawn), torch.where(there, place[rows.clamp(min=0)], -1)
    )


def choose_images(
    way: Way,
    data: TrainingFeatures,
    ks: Int[Tensor, " images"],
    measure: Callable[[Bool[Tensor, " images"]], ImageQuality],
) -> tuple[Bool[Tensor, " images"], int]:
    """Which images of the pool a way keeps, and how many it draws.

    A repair measures what is drawn so far, as jobs/repair.py does, and draws as many more images of
    a caption as it lacks good ones, until the pool has no more.
    """
    rows, drawn = data.image_of_caption, ks < way.first
    for _ in range(way.repair_rounds):
        lacking = lacking_images(measure(drawn), len(rows), way.wanted, 1.0)
        for caption, count in lacking.items():
            left = [row for row in rows[caption].tolist() if row >= 0 and not drawn[row]]
            drawn[left[:count]] = True
    keep = torch.zeros_like(drawn)
    keep[drawn.nonzero()[:, 0][kept_images(measure(drawn), way.choice)]] = True
    return keep, int(drawn.sum())


def run(options: ChoicesConfig) -> dict[str, Any]:
    """Chooses, trains, measures; writes the table and returns what it holds."""
    require(options.kept > 1, f"kept must be > 1, got {options.kept}.")
    store, backbone = Store(f"{options.claims}/{POOL}"), load_backbone(options.backbone)
    workers = (os.cpu_count() or 1) if options.num_workers is None else options.num_workers
    run, folder = read_run(store), feature_folder(backbone)
    settings, pool = run.settings, run.settings.images_per_caption
    require(pool > options.kept, f"kept must be < the {pool} images a caption of the pool.")
    fit = all(0 < few < pool for few in options.pools)
    require(fit, f"pools must be 1 to {pool - 1}, got {list(options.pools)}.")
    data = training_features_of(run, folder)
    hashes = read_hashes(run, data.images)
    rows, found = judged(store)
    seen = torch.from_numpy(found)
    assert data.images is not None and [s.key for s in run.images] == [row.key for row in rows]
    ks, named = torch.tensor([row.k for row in rows]), data.images.labels > 0
    prompts = zero_shot_embeddings(backbone, settings.prompt_names)

    def measure(drawn: Bool[Tensor, " images"]) -> ImageQuality:
        part = drawn_only(data, drawn)
        return measure_quality(part, prompts, hashes[drawn], options.quality)

    planned, _ = plan_runs(
        ("t2ipal",), options.seeds, "pictovoc", settings.class_names, settings.prompt_names
    )
    recipes = [each.recipe for each in planned]
    table, tasks = [], []
    for way in ways(options.kept, options.pools, pool):
        keep, num_drawn = choose_images(way, data, ks, measure)
        name = "-".join(way.name.split())
        keys = [row.key for row, kept in zip(rows, keep.tolist(), strict=True) if kept]
        write_kept(store, name, rows, keep)
        share = float((seen & named)[keep].sum() / named[keep].sum())
        table.append(
            {"way": way.name, "num_drawn": num_drawn, "num_kept": len(keys), "judge_share": share}
        )
        for recipe in recipes:
            facts = [to_dict(settings), keys, to_dict(recipe), folder, options.test_sets]
            setting = Setting(POOL, "t2ipal", choice=name)
            place = options.claims, options.backbone, folder, options.test_sets
            tasks.append(Task(fingerprint(facts), setting, recipe, *place))
    fits = train_all(tasks, Path(options.claims) / "choices.jsonl", workers)
    results = [
        {task.recipe.training.seed: fits[task.key]["mAP"] for task in tasks[at : at + len(recipes)]}
        for at in range(0, len(tasks), len(recipes))
    ]
    for row, result in zip(table, results, strict=True):
        row["mAP"] = {name: asdict(by_seed(result, name)) for name in options.test_sets}
        row["over"] = {name: asdict(paired(result, results[0], name)) for name in options.test_sets}
    measured = {"options": to_dict(options), "backbone": backbone.fingerprint, "rows": table}
    (Path(options.claims) / "choices.json").write_text(json.dumps(measured, indent=1) + "\n")
    (Path(options.claims) / "choices.md").write_text(markdown(measured))
    return measured


def write_kept(
    store: Store, name: str, rows: Sequence[Sample], keep: Bool[Tensor, " images"]
) -> None:
    """Names the kept images as a choice that training reads."""
    table = [
        ChoiceRow(row.key, row.caption_id, row.k, 0.0, (), (), "", kept)
        for row, kept in zip(rows, keep.tolist(), strict=True)
    ]
    write_choice(store, name, table, {"benchmark": "choices"})


def markdown(measured: dict[str, Any]) -> str:
    """A row for each way."""
    first, names = measured["rows"][0]["way"], measured["options"]["test_sets"]
    head = ["images", "drawn", "kept", "judge finds"]
    for name in names:
        head += [name, f"over {first}"]
    lines = [table_line(head), table_line(["---", *["---:"] * (len(head) - 1)])]
    for row in measured["rows"]:
        cells = [row["way"], f"{row['num_drawn']:,}", f"{row['num_kept']:,}"]
        cells.append(f"{100 * row['judge_share']:.0f}%")
        for name in names:
            cells += [number(row["mAP"][name]), number(row["over"][name], "+")]
        lines.append(table_line(cells))
    return "\n".join(lines) + "\n"
