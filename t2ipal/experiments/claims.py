"""Every claim of the paper on the embedded world: several seeds, one backbone, one table.

Synthesizes the same captions at the default guidance and at each of a sweep, and renders them (the
upper bound); then trains and measures every method on them. Differences are per seed. What is done
is found again. `benchmarks/claims.py` runs it.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from t2ipal.config import fingerprint, one_of, override, parse_changes, require, to_dict
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.engine.config import RayConfig
from t2ipal.engine.session import connect
from t2ipal.engine.workers import extract, synthesis_workers
from t2ipal.experiments.claims_table import (
    KINDS,
    Setting,
    guidance_set,
    markdown,
    measure,
    plan_claims,
    plan_rows,
)
from t2ipal.experiments.config import demo_synthesis
from t2ipal.experiments.demo import choose_captions
from t2ipal.experiments.fits import Task, store_scenes, train_all
from t2ipal.features.backbone import Backbone, load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.extraction import feature_folder
from t2ipal.features.reading import read_training_features
from t2ipal.features.sets import TrainingFeatures
from t2ipal.methods.t2ipal import T2IPALConfig
from t2ipal.pictovoc import WEIGHTS_DIR
from t2ipal.pictovoc.judge import NAMED_THRESHOLD, load_judge
from t2ipal.pictovoc.scenes import CLASS_NAMES
from t2ipal.pictovoc.worlds import WORLDS, train_scenes, world_scenes
from t2ipal.places import LocalPath
from t2ipal.store import Sample, Store, read_images, read_manifest
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.rendering import RenderingSynthesizer
from t2ipal.synthesis.request import ExecutionConfig, SynthesisRequest
from t2ipal.training.plans import plan_runs
from t2ipal.training.recipes import Recipe

logger = logging.getLogger(__name__)


def claims_synthesis() -> SynthesisConfig:
    """The demo's, with more images."""
    return dataclasses.replace(demo_synthesis(), images_per_caption=10)


@dataclass(frozen=True)
class ClaimsConfig:
    """Tests the paper's claims."""

    output: LocalPath = "runs/claims"
    """Folder of the image sets, the fits and the table."""
    num_captions: int = 1000
    """Captions used, the same ones as in jobs/demo.py."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Training seeds."""
    main_images: int = 6
    """Images a caption wherever a row says nothing else, and of the rendered set (paper: 6)."""
    image_counts: tuple[int, ...] = (1, 2, 4, 6, 10)
    """Images a caption that are compared, the first ones of the synthetic set."""
    guidance_scales: tuple[float, ...] = (1, 1.5, 2, 3, 4, 6, 8)
    """Guidance scales that are compared with the default one."""
    sweep_images: int = 2
    """Images a caption of that comparison."""
    caption_counts: tuple[int, ...] = (100,)
    """Fewer captions, the first ones, with one image of each and with many."""
    num_labeled: int = 1000
    """Labeled train scenes of the supervised row."""
    test_sets: tuple[str, ...] = ("pictovoc", "pictovoc_shifted")
    """The world's test sets to measure on."""
    num_workers: int | None = None
    """Processes that synthesize, and that train; None: one per CPU; 0: all in this process."""
    set: tuple[str, ...] = ()
    """Changes to every recipe, as name=value with dotted names, e.g. method.sharpness=3.5."""
    synthesis: SynthesisConfig = field(default_factory=claims_synthesis)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    ray: RayConfig = field(default_factory=RayConfig)


def check(options: ClaimsConfig) -> None:
    """Refuses what no later stage could make sense of."""
    for name in ("num_captions", "main_images", "sweep_images", "num_labeled"):
        require(getattr(options, name) > 0, f"{name} must be > 0, got {getattr(options, name)}.")
    for name in ("seeds", "image_counts", "test_sets"):
        require(len(getattr(options, name)) > 0, f"{name} must name at least one, got none.")
    fitting = [name for name, world in WORLDS.items() if world.class_names == CLASS_NAMES]
    for name in options.test_sets:
        one_of("test set", name, fitting)
    workers = options.num_workers
    require(workers is None or workers >= 0, f"num_workers must be >= 0, got {workers}.")
    most = options.num_captions - 1
    for count in options.caption_counts:
        require(0 < count <= most, f"caption_counts must be in 1..{most}, got {count}.")
    most = max(*options.image_counts, options.main_images, options.sweep_images)
    require(
        most <= options.synthesis.images_per_caption,
        f"images_per_caption must be at least the {most} images that a row learns from, got "
        f"{options.synthesis.images_per_caption}.",
    )


def image_sets(options: ClaimsConfig) -> dict[str, tuple[SynthesisConfig, Any]]:
    """Name -> settings and maker (None: Stable Diffusion) of every set of images."""
    base, sweep = options.synthesis, options.sweep_images
    rendered = SynthesisConfig("rendered", images_per_caption=options.main_images, seed=base.seed)
    sets = {"synthetic": (base, None), "rendered": (rendered, RenderingSynthesizer)}
    for scale in options.guidance_scales:
        changed = dataclasses.replace(base, guidance_scale=scale, images_per_caption=sweep)
        sets.setdefault(guidance_set(scale, base.guidance_scale), (changed, None))
    return sets


def plan_fits(
    settings: Sequence[Setting],
    options: ClaimsConfig,
    request: SynthesisRequest,
    tell: Callable[[str], None] = logger.info,
) -> dict[tuple[Setting, int], Recipe]:
    """The recipe of each setting and seed; methods without training have one seed only.

    The changes hold for every method that has the option, as in jobs/train.py.
    """
    methods, asked = tuple(dict.fromkeys(s.method for s in settings)), request.settings()
    changes = parse_changes(options.set)
    runs, remarks = plan_runs(
        methods, options.seeds, "pictovoc", asked.class_names, asked.prompt_names, changes
    )
    for remark in remarks:
        tell(remark)
    recipes = {}
    for setting in dict.fromkeys(settings):
        count = setting.images_per_caption
        times = options.num_captions / (setting.num_captions or options.num_captions)
        for run in runs:
            if run.name.rpartition("-seed")[0] == setting.method:
                recipe = override(run.recipe, longer(run.recipe, times))
                if count:
                    recipe = override(recipe, {"training.images_per_caption": count})
                recipes[setting, recipe.training.seed] = recipe
    return recipes


def uses_images(recipe: Recipe) -> bool:
    """Whether a recipe learns from images."""
    return isinstance(recipe.method, T2IPALConfig) and recipe.method.image_weight > 0


def longer(recipe: Recipe, times: float) -> dict[str, int]:
    """Changes after which a recipe takes so many times its epochs."""
    names = ("num_epochs", "warmup_epochs")
    return {f"training.{name}": round(times * getattr(recipe.training, name)) for name in names}


def plan_tasks(
    options: ClaimsConfig,
    recipes: Mapping[tuple[Setting, int], Recipe],
    requests: Mapping[str, SynthesisRequest],
    backbone: Backbone,
) -> list[Task]:
    """All fits, those of one image set after each other: a worker keeps one set in memory."""
    folder, tasks = feature_folder(backbone), []
    for (setting, _), recipe in recipes.items():
        request = requests.get(setting.images)
        images = to_dict(request.settings()) if request else setting.images
        facts = [images, to_dict(recipe), folder, options.test_sets]
        facts += [setting.num_captions] if setting.num_captions else []
        place = options.output, options.backbone, folder, options.test_sets
        tasks.append(Task(fingerprint(facts), setting, recipe, *place))
    return sorted(tasks, key=lambda task: task.setting.images)


def judged(store: Store) -> tuple[list[Sample], Bool[np.ndarray, "images classes"]]:
    """Rows of all images of a run, and the classes that the judge finds in each."""
    shards = [shard.shard for shard in read_manifest(store).shards]
    pairs = [pair for shard in shards for pair in read_images(store, shard)]
    probs = load_judge(WEIGHTS_DIR / "judge").probs(np.stack([image for _, image in pairs]))
    return [row for row, _ in pairs], probs > NAMED_THRESHOLD


def judged_counts(store: Store) -> list[list[int]]:
    """[found, named] classes of every caption's k-th image, by k; kept beside the images."""
    shards = read_manifest(store).shards
    key = f"judge-{sum(shard.num_rows for shard in shards)}.json"  # a run can grow
    if not store.exists(key):
        rows, found = judged(store)
        counts = np.zeros((1 + max(row.k for row in rows), 2), dtype=int)
        for row, seen in zip(rows, found, strict=True):
            counts[row.k] += int(seen[list(row.labels)].sum()), len(row.labels)
        store.write(key, json.dumps(counts.tolist()).encode())
    return json.loads(store.read(key))


def variance_within(data: TrainingFeatures, count: int) -> float:
    """Share of the variance of CLIP's features that lies between the images of one caption.

    Of both the unbiased estimate: few images of a caption would otherwise seem more alike.

    Args:
        data: a run's captions and images.
        count: of each caption's images, the first ones, at least two; captions that lack one are
            left out.
    """
    assert data.images is not None
    rows = data.image_of_caption[:, :count]
    features = data.images.column("global_features")[rows[(rows >= 0).all(dim=1)]]
    return float(features.var(dim=1).mean(dim=0).sum() / features.flatten(0, 1).var(dim=0).sum())


def make_images(
    options: ClaimsConfig,
    requests: Mapping[str, SynthesisRequest],
    workers: int,
    tell: Callable[[str], None] = logger.info,
) -> None:
    """Synthesizes or renders every set, and extracts its features."""
    in_process = workers == 0
    make = synthesis_workers(in_process)
    with connect(options.ray, least_cpus=workers) if workers else nullcontext():
        for name, (_, factory) in image_sets(options).items():
            tell(f"== {name}")
            store = Store(f"{options.output}/{name}")
            where = ExecutionConfig(max_workers=workers or None)
            synthesize(store, requests[name], where, workers=make, factory=factory, progress=True)
            extract(store, options.backbone, in_process)


def run(options: ClaimsConfig, tell: Callable[[str], None] = logger.info) -> dict[str, Any]:
    """Makes the images, trains, measures; writes the table and returns what it holds.

    Args:
        options: what is compared.
        tell: gets what a person may want to read meanwhile.
    """
    check(options)
    output, store = Path(options.output), Store(options.output)
    workers = (os.cpu_count() or 1) if options.num_workers is None else options.num_workers
    rows = plan_rows(
        options.main_images, options.image_counts, options.guidance_scales,
        options.synthesis.guidance_scale, options.sweep_images, options.num_labeled,
        options.caption_counts,
    )  # fmt: skip
    vocabulary, captions = choose_captions(options.num_captions)
    requests = {
        name: SynthesisRequest(config, vocabulary, captions)
        for name, (config, _) in image_sets(options).items()
    }
    # What later stages would refuse is refused before minutes of synthesis.
    recipes = plan_fits([setting for _, _, setting in rows], options, requests["synthetic"], tell)
    backbone = load_backbone(options.backbone)
    fixed = {f"test-{name}": partial(world_scenes, name) for name in options.test_sets}
    fixed[f"labeled-{options.num_labeled}"] = partial(train_scenes, options.num_labeled)
    for name, draw in fixed.items():
        store_scenes(store, name, backbone, draw)
    make_images(options, requests, workers, tell)

    tasks = plan_tasks(options, recipes, requests, backbone)
    fits = train_all(tasks, output / "fits.jsonl", workers)
    results: dict[Setting, dict[int, dict[str, float]]] = {}
    for task in tasks:
        found = results.setdefault(task.setting, {})
        found[task.recipe.training.seed] = fits[task.key]["mAP"]
    counts = {name: judged_counts(Store(f"{output}/{name}")) for name in requests}

    def judge_share(setting: Setting) -> float | None:
        seen = uses_images(recipes[setting, options.seeds[0]])
        if not seen or setting.images not in counts or setting.num_captions:
            return None
        found, named = np.sum(counts[setting.images][: setting.images_per_caption], axis=0)
        return float(found / named)

    claims = plan_claims(options.main_images, min(options.image_counts))
    measured = measure(rows, claims, results, judge_share, options.test_sets)
    measured["variance_within"] = {
        kind: variance_within(
            read_training_features(Store(f"{output}/{kind}"), feature_folder(backbone)),
            options.main_images,
        )
        for kind in KINDS
        if options.main_images > 1
    }
    measured = {"options": to_dict(options), "backbone": backbone.fingerprint, **measured}
    (output / "claims.json").write_text(json.dumps(measured, indent=1) + "\n")
    (output / "claims.md").write_text(markdown(measured))
    return measured
