"""Is it worth choosing among synthetic images, or drawing the poor ones again? Several seeds.

Takes the synthetic images of a reproduction as a pool: a sample depends on its caption and number
alone, so the pool's further images stand for those that a repair would draw. Each way of choosing
is told to use so many images of each caption; T2I-PAL is trained on what it keeps.
`benchmarks/choices.py` runs it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from t2ipal.config import PositiveInt, check_fields, fingerprint, one_of, require, to_dict
from t2ipal.engine.config import RayConfig
from t2ipal.experiments.config import ReproductionConfig
from t2ipal.experiments.fitting import read_fits
from t2ipal.experiments.numbers import Numbers
from t2ipal.experiments.reproduction import train_missing, trainable, with_features
from t2ipal.experiments.results import effect, measured_cell
from t2ipal.experiments.rows import At, System
from t2ipal.experiments.shown import judged, named
from t2ipal.experiments.sources import Captions, Data
from t2ipal.experiments.written import cell_text, gain_text, table_line
from t2ipal.features.config import BackboneConfig
from t2ipal.features.reading import read_hashes, training_features_of
from t2ipal.features.sets import TrainingFeatures
from t2ipal.pictovoc.judge import found_share
from t2ipal.pictovoc.scenes import CLASS_NAMES
from t2ipal.pictovoc.worlds import WORLDS
from t2ipal.places import LocalPath
from t2ipal.pools import PoolConfig
from t2ipal.selection.choosing import ChoiceConfig, kept_images
from t2ipal.selection.quality import (
    ImageQuality,
    QualityConfig,
    measure_quality,
    zero_shot_embeddings,
)
from t2ipal.selection.repairing import lacking_images
from t2ipal.store import ChoiceRow, Sample, Store, json_bytes, read_run, write_choice

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

    reproduction: LocalPath = "runs/reproduction"
    """Output folder of jobs/reproduce.py on the embedded world, whose synthetic images are chosen
    from and whose trainings are gone on with."""
    seeds: PositiveInt = 5
    """Training seeds."""
    kept: PositiveInt = 4
    """Images of each caption that a choice ends with, and that a repair begins with."""
    pools: tuple[PositiveInt, ...] = (1, 2)
    """Smaller pools, the first so many images of each caption, for the default choice."""
    test_sets: tuple[str, ...] = ("pictovoc", "pictovoc_shifted")
    """The world's test sets to measure on."""
    in_process: bool = False
    """Train in this process, without Ray."""
    quality: QualityConfig = field(default_factory=QualityConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        check_fields(self)
        require(self.kept > 1, f"kept must be > 1, got {self.kept}.")
        fitting = [name for name, world in WORLDS.items() if world.class_names == CLASS_NAMES]
        for name in self.test_sets:
            one_of("test set", name, fitting)


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


def run(options: ChoicesConfig, tell: Callable[[str], None]) -> dict[str, Any]:
    """Chooses, trains, measures; writes the table and returns what it holds.

    Args:
        options: what is compared.
        tell: gets what a person may want to read meanwhile.

    Raises:
        FileNotFoundError: the reproduction has no images yet.
    """
    home, place = Store(options.reproduction), Store(f"{options.reproduction}/sets/{POOL}")
    if not place.exists("manifest.json"):
        raise FileNotFoundError(
            f"No images in {place.uri}. Run jobs/reproduce.py --output {home.uri} first."
        )
    pool_run = read_run(place)
    settings, pool = pool_run.settings, pool_run.settings.images_per_caption
    require(pool > options.kept, f"kept must be < the {pool} images a caption of the pool.")
    fit = all(few < pool for few in options.pools)
    require(fit, f"pools must be 1 to {pool - 1}, got {list(options.pools)}.")
    config = ReproductionConfig(
        seeds=options.seeds, in_process=options.in_process, backbone=options.backbone,
        pool=options.pool,
    )  # fmt: skip
    data = Data(
        home, "pictovoc", {POOL: place}, {POOL: pool}, {"main": options.backbone},
        options.test_sets,
    )  # fmt: skip
    data = with_features(config, data, [(Captions((POOL,)), "main")], tell)

    features = training_features_of(pool_run, data.described["backbones"]["main"])
    hashes = read_hashes(pool_run, features.images)
    prompts = zero_shot_embeddings(data.load_backbone("main"), settings.prompt_names)
    samples, found = judged(place)
    labels, ks = named(samples), torch.tensor([sample.k for sample in samples])

    def measure(drawn: Bool[Tensor, " images"]) -> ImageQuality:
        part = drawn_only(features, drawn)
        return measure_quality(part, prompts, hashes[drawn], options.quality)

    rows, systems = [], []
    for way in ways(options.kept, options.pools, pool):
        keep, num_drawn = choose_images(way, features, ks, measure)
        kept = keep.nonzero()[:, 0].tolist()
        share, _ = found_share(found[kept], [labels[row] for row in kept])
        rows.append(
            {"way": way.name, "num_drawn": num_drawn, "num_kept": len(kept), "judge_share": share}
        )
        choice = write_kept(place, way.name, samples, keep)
        systems.append(System("t2ipal", Captions((POOL,), same_images=True, choice=choice)))
    seeds = range(options.seeds)
    wanted = trainable(systems, data, seeds)
    failed = train_missing(config, data, wanted, frozenset(), tell)
    require(not failed, next(iter(failed.values()), ""))
    numbers = Numbers(data, seeds, read_fits(wanted, data, frozenset()), {})
    for row, system in zip(rows, systems, strict=True):
        row["mAP"], row["over"] = {}, {}
        for name in options.test_sets:
            summary, gain = numbers(At(system, name)), numbers.difference(system, systems[0], name)
            assert summary is not None and gain is not None
            row["mAP"][name], row["over"][name] = measured_cell(summary), effect(gain)
    measured = {"options": to_dict(options), "rows": rows}
    home.write("choices.json", json_bytes(measured))
    home.write("choices.md", markdown(measured).encode())
    return measured


def write_kept(
    store: Store, way: str, samples: Sequence[Sample], keep: Bool[Tensor, " images"]
) -> str:
    """Names the kept images as a choice that training reads; other images have another name."""
    table = [
        ChoiceRow(sample.key, sample.caption_id, sample.k, 0.0, (), (), "", kept)
        for sample, kept in zip(samples, keep.tolist(), strict=True)
    ]
    digest = fingerprint([row.key for row in table if row.kept])
    name = f"{'-'.join(way.split())}-{digest}"
    write_choice(store, name, table, {"benchmark": "choices"})
    return name


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
            cells.append(cell_text(row["mAP"][name]))
            cells.append("" if row is measured["rows"][0] else gain_text(row["over"][name]))
        lines.append(table_line(cells))
    return "\n".join(lines) + "\n"
