"""Features of a synthesized run, then prompts and adapters trained on them with Ray Train.

    python jobs/train.py --run runs/coco --methods tai_dpt t2ipal --seeds 0 1 2

Any setting of the method or its training can be changed by its dotted name:

    python jobs/train.py --run runs/coco --set method.residual_ratio=0.5 training.lr=0.002

The same command again goes on where it was left. The last line of the output is a JSON summary.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro
import yaml

from jobs._job import run_job
from t2ipal.config import override, require, to_dict
from t2ipal.engine.extraction import extract_run
from t2ipal.engine.session import connect
from t2ipal.engine.training import TrainingRun, train_runs
from t2ipal.extraction import read_training_features
from t2ipal.features import Backbone, BackboneConfig, TrainingFeatures, load_backbone
from t2ipal.recipes import METHODS, Recipe, recipe
from t2ipal.store import Store, read_choice_settings, read_manifest

FLAT = tyro.conf.arg(name="")


@dataclass(frozen=True)
class Options:
    """Trains recognizers on a run's captions and synthetic images."""

    run: str
    """Folder that jobs/synthesize.py filled: a local path, or s3://bucket/prefix."""
    output: str | None = None
    """Local folder for the recognizers; None: `run`/train."""
    images: str | None = None
    """A choice among the images by its name (jobs/choose.py); None: all of them."""
    methods: tuple[str, ...] = ("zsclip", "tai_dpt", "t2ipal")
    """Any of the recipes: zsclip, zsclip_local, tai, tai_dpt, tai_dpt_adapter, t2ipal,
    t2ipal_no_adapter, t2ipal_images_only, ..."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the context's start and of the order of captions; one recognizer each."""
    data_set: str = "pictovoc"
    """Whose schedule to take: pictovoc, voc2007, coco2014 or nuswide."""
    set: tuple[str, ...] = ()
    """Changes as name=value with dotted names, e.g. method.sharpness=3.5."""
    num_workers: int = 1
    """Ray Train workers; 0 trains in this process without Ray."""
    use_gpu: bool = False
    """One GPU for each worker."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """`name=value` words as a mapping; values are read as YAML, and 1e-3 as a number too."""
    values: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        require(bool(equals), f"A change must read name=value, got {change!r}.")
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{change!r} has no value that YAML can read: {error}") from error
        if isinstance(values[name], str):
            with suppress(ValueError):  # YAML 1.1 takes 1e-3 for text
                values[name] = float(text)
    return values


def load_inputs(
    store: Store, config: BackboneConfig, folder: str, images: str | None
) -> tuple[Backbone, TrainingFeatures]:
    """What a training worker reads."""
    return load_backbone(config), read_training_features(store, folder, images)


def plan_runs(options: Options, settings: dict[str, Any]) -> list[TrainingRun]:
    """One training run for each method and seed; methods without training need one seed only."""
    chosen_both = bool(options.seeds) and bool(options.methods)
    require(chosen_both, "Give at least one method and one seed.")
    runs = []
    names = tuple(settings["class_names"]), tuple(settings["prompt_names"])
    for method in options.methods:
        for seed in options.seeds:
            chosen: Recipe = recipe(method, options.data_set, *names, seed)
            chosen = override(chosen, parse_changes(options.set))
            if METHODS[method].get("training.num_epochs") == 0:
                chosen = override(chosen, {"training.num_epochs": 0})
                if seed != options.seeds[0]:
                    continue
            runs.append(TrainingRun(f"{method}-seed{seed}", chosen))
    return runs


def run(options: Options) -> dict[str, Any]:
    """Extracts what features are missing, trains, and returns the summary."""
    require(options.num_workers >= 0, f"num_workers must be >= 0, got {options.num_workers}.")
    store = Store(options.run, options.endpoint_url)
    runs = plan_runs(options, read_manifest(store)["settings"])
    require(
        options.output is not None or "://" not in options.run,
        "output must be a local folder where the run is in a bucket: give --output.",
    )
    facts: dict[str, Any] = {"backbone": to_dict(options.backbone)}
    if options.images is not None:  # before anything starts: a choice that is not there
        chosen = facts["images"] = read_choice_settings(store, options.images)
        require(
            chosen["num_kept"] > 0,
            f"The choice {options.images!r} keeps none of {chosen['num_images']:,} images, asked "
            f"for {chosen['settings'].get('choice')}. Run jobs/choose.py with lower thresholds.",
        )
    output = Path(options.output or f"{options.run}/train")
    workers = 0 if options.num_workers == 0 else None
    least_gpus = options.num_workers if options.use_gpu else 0
    session = connect(least_cpus=max(options.num_workers, 1), least_gpus=least_gpus)
    with nullcontext() if workers == 0 else session:
        folder = extract_run(store, options.backbone, num_workers=workers, progress=True)
        inputs = partial(load_inputs, store, options.backbone, folder, options.images)
        results = train_runs(
            runs,
            inputs,
            output,
            inputs={"features": folder, **facts},
            num_workers=options.num_workers,
            use_gpu=options.use_gpu,
        )
    return {
        "output": str(output),
        "features": folder,
        "recognizers": sorted(results),
        "final_loss": {n: r.history[-1].loss for n, r in results.items() if r.history},
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    summary = run(tyro.cli(Options, args=arguments, description=__doc__))
    print(json.dumps(summary))
    return summary


if __name__ == "__main__":
    run_job(main)
