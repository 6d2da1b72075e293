"""Every claim of the paper on the embedded world: several seeds, one backbone, one table.

    python benchmarks/claims.py --output runs/claims

Synthesizes the same captions at the default guidance and at each of a sweep, and renders them (the
upper bound); then trains and measures every method on them. Differences are per seed. The same
command again goes on where it was left. Writes claims.md and claims.json into the output folder;
the last line of the output is a JSON summary.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tyro
from jaxtyping import Bool

from benchmarks.claims_fits import Task, store_scenes, train_all
from benchmarks.claims_table import (
    KINDS,
    Setting,
    guidance_set,
    markdown,
    measure,
    plan_claims,
    plan_rows,
)
from jobs import demo, train
from jobs._job import run_job
from t2ipal.config import fingerprint, one_of, override, require, to_dict
from t2ipal.engine.extraction import extract_run
from t2ipal.engine.session import connect
from t2ipal.engine.synthesis import RunConfig, SynthesisRequest, synthesize, synthesize_locally
from t2ipal.extraction import feature_folder, read_training_features
from t2ipal.features import Backbone, BackboneConfig, TrainingFeatures, load_backbone
from t2ipal.pictovoc import WEIGHTS_DIR
from t2ipal.pictovoc.checks import NAMED_THRESHOLD
from t2ipal.pictovoc.judge import load_judge
from t2ipal.pictovoc.rendering import RenderingSynthesizer
from t2ipal.pictovoc.scenes import CLASS_NAMES
from t2ipal.pictovoc.worlds import WORLDS, train_scenes, world_scenes
from t2ipal.recipes import Recipe
from t2ipal.store import Store, read_images, read_manifest
from t2ipal.synthesis import SynthesisConfig

FLAT = tyro.conf.arg(name="")


@dataclass(frozen=True)
class Options:
    """Tests the paper's claims."""

    output: str = "runs/claims"
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
    synthesis: Annotated[SynthesisConfig, FLAT] = field(
        default_factory=lambda: dataclasses.replace(demo.Options().synthesis, images_per_caption=10)
    )
    backbone: BackboneConfig = field(default_factory=BackboneConfig)


def check(options: Options) -> None:
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


def image_sets(options: Options) -> dict[str, tuple[SynthesisConfig, Any]]:
    """Name -> settings and maker (None: Stable Diffusion) of every set of images."""
    base, sweep = options.synthesis, options.sweep_images
    rendered = SynthesisConfig("rendered", images_per_caption=options.main_images, seed=base.seed)
    sets = {"synthetic": (base, None), "rendered": (rendered, RenderingSynthesizer)}
    for scale in options.guidance_scales:
        changed = dataclasses.replace(base, guidance_scale=scale, images_per_caption=sweep)
        sets.setdefault(guidance_set(scale, base.guidance_scale), (changed, None))
    return sets


def plan_fits(
    settings: Sequence[Setting], options: Options, request: SynthesisRequest
) -> dict[tuple[Setting, int], Recipe]:
    """The recipe of each setting and seed; methods without training have one seed only."""
    recipes = {}
    for setting in dict.fromkeys(settings):
        count = setting.images_per_caption
        changes = options.set + ((f"training.images_per_caption={count}",) if count else ())
        plan = train.Options("", methods=(setting.method,), seeds=options.seeds, set=changes)
        for run in train.plan_runs(plan, request.settings()):
            times = options.num_captions / (setting.num_captions or options.num_captions)
            recipe = override(run.recipe, longer(run.recipe, times))
            recipes[setting, recipe.training.seed] = recipe
    return recipes


def longer(recipe: Recipe, times: float) -> dict[str, int]:
    """Changes after which a recipe takes so many times its epochs."""
    names = ("num_epochs", "warmup_epochs")
    return {f"training.{name}": round(times * getattr(recipe.training, name)) for name in names}


def plan_tasks(
    options: Options,
    recipes: Mapping[tuple[Setting, int], Recipe],
    requests: Mapping[str, SynthesisRequest],
    backbone: Backbone,
) -> list[Task]:
    """All fits, those of one image set after each other: a worker keeps one set in memory."""
    folder, tasks = feature_folder(backbone), []
    for (setting, _), recipe in recipes.items():
        request = requests.get(setting.images)
        images = request.settings() if request else setting.images
        facts = [images, to_dict(recipe), folder, options.test_sets]
        facts += [setting.num_captions] if setting.num_captions else []
        place = options.output, options.backbone, folder, options.test_sets
        tasks.append(Task(fingerprint(facts), setting, recipe, *place))
    return sorted(tasks, key=lambda task: task.setting.images)


def judged(store: Store) -> tuple[list[dict[str, Any]], Bool[np.ndarray, "images classes"]]:
    """Rows of all images of a run, and the classes that the judge finds in each."""
    shards = [marker["shard"] for marker in read_manifest(store)["shards"]]
    pairs = [pair for shard in shards for pair in read_images(store, shard)]
    probs = load_judge(WEIGHTS_DIR / "judge").probs(np.stack([image for _, image in pairs]))
    return [row for row, _ in pairs], probs > NAMED_THRESHOLD


def judged_counts(store: Store) -> list[list[int]]:
    """[found, named] classes of every caption's k-th image, by k; kept beside the images."""
    shards = read_manifest(store)["shards"]
    key = f"judge-{sum(marker['num_rows'] for marker in shards)}.json"  # a run can grow
    if not store.exists(key):
        rows, found = judged(store)
        counts = np.zeros((1 + max(row["k"] for row in rows), 2), dtype=int)
        for row, seen in zip(rows, found, strict=True):
            counts[row["k"]] += int(seen[row["labels"]].sum()), len(row["labels"])
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
    features = data.images.global_features[rows[(rows >= 0).all(dim=1)]]
    return float(features.var(dim=1).mean(dim=0).sum() / features.flatten(0, 1).var(dim=0).sum())


def make_images(options: Options, requests: Mapping[str, SynthesisRequest], workers: int) -> None:
    """Synthesizes or renders every set, and extracts its features."""
    make = synthesize if workers else synthesize_locally
    with connect(least_cpus=workers) if workers else nullcontext():
        for name, (_, factory) in image_sets(options).items():
            print(f"== {name}", file=sys.stderr, flush=True)
            store = Store(f"{options.output}/{name}")
            where = RunConfig(max_workers=workers or None)
            make(store, requests[name], where, factory=factory, progress=True)
            extract_run(store, options.backbone, num_workers=workers, progress=True)


def run(options: Options) -> dict[str, Any]:
    """Makes the images, trains, measures; writes the table and returns what it holds."""
    check(options)
    output, store = Path(options.output), Store(options.output)
    workers = (os.cpu_count() or 1) if options.num_workers is None else options.num_workers
    rows = plan_rows(
        options.main_images, options.image_counts, options.guidance_scales,
        options.synthesis.guidance_scale, options.sweep_images, options.num_labeled,
        options.caption_counts,
    )  # fmt: skip
    vocabulary, captions = demo.choose_captions(options.num_captions)
    requests = {
        name: SynthesisRequest(config, vocabulary, captions)
        for name, (config, _) in image_sets(options).items()
    }
    # What later stages would refuse is refused before minutes of synthesis.
    recipes = plan_fits([setting for _, _, setting in rows], options, requests["synthetic"])
    backbone = load_backbone(options.backbone)
    fixed = {f"test-{name}": partial(world_scenes, name) for name in options.test_sets}
    fixed[f"labeled-{options.num_labeled}"] = partial(train_scenes, options.num_labeled)
    for name, draw in fixed.items():
        store_scenes(store, name, backbone, draw)
    make_images(options, requests, workers)

    tasks = plan_tasks(options, recipes, requests, backbone)
    fits = train_all(tasks, output / "fits.jsonl", workers)
    results: dict[Setting, dict[int, dict[str, float]]] = {}
    for task in tasks:
        found = results.setdefault(task.setting, {})
        found[task.recipe.training.seed] = fits[task.key]["mAP"]
    counts = {name: judged_counts(Store(f"{output}/{name}")) for name in requests}

    def judge_share(setting: Setting) -> float | None:
        seen = recipes[setting, options.seeds[0]].method.image_weight > 0
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


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures and prints."""
    measured = run(tyro.cli(Options, args=arguments, description=__doc__))
    print(markdown(measured))
    differences = {
        claim["claim"]: {name: round(d["mean"], 2) for name, d in claim["difference"].items()}
        for claim in measured["claims"]
    }
    print(json.dumps({"output": measured["options"]["output"], "claims": differences}))
    return measured


if __name__ == "__main__":
    run_job(main)
