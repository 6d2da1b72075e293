"""T2I-PAL+: may held-out synthetic images choose its constants, and what does it cost?

    python jobs/reproduce.py --items plus --on pictovoc --seeds 5 --output runs/plus
    python benchmarks/plus.py --run runs/plus/sets/synthetic

**choice** A fifth of the captions is held out. The discriminants' constants (ridge, learning rate,
shrinkage) are chosen twice: on the synthetic images of these captions, which any user has, and on
labelled validation scenes, which a user has not. Then the weights of the three parts too. Prints
what both choices reach on the validation scenes, and exits 1 where the first of these choices is
more than `GAP` behind.

**cost** T2I-PAL and T2I-PAL+ are trained in turns, each in a process of its own. Prints medians of
training, of scoring 1,000 images, peak memory, and the size of the recognizer.

The last line of the output is JSON.
"""

import dataclasses
import itertools
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from t2ipal.captions import load_vocabulary
from t2ipal.commands.running import FLAT, finish, parse, run_job
from t2ipal.config import PositiveInt, override, require
from t2ipal.evaluation.metrics import average_precision
from t2ipal.evaluation.stored_sets import stored_features
from t2ipal.evaluation.test_sets import load_test_set
from t2ipal.experiments.sources import turned_rows
from t2ipal.features.backbone import Backbone, load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.extraction import feature_folder
from t2ipal.features.reading import read_training_features
from t2ipal.features.sets import FeatureTable, TrainingFeatures
from t2ipal.methods.recognizer import Recognizer, scorer_tensors
from t2ipal.places import Uri
from t2ipal.store import Store
from t2ipal.training.loop import fit
from t2ipal.training.recipes import Recipe, recipe
from t2ipal.training.stacked import Stack
from t2ipal.training.validation import held_out_captions, images_of, without_captions

FRACTION = 0.2
"""Of the captions that are held out."""
GAP = 0.5
"""mAP on validation scenes that a choice on synthetic images may cost."""
SHRINKAGES, RIDGES, RATES = (0.03, 0.1, 0.3), (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (0.1, 0.2, 0.4)
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Of prompts and of zero-shot CLIP; the discriminants have 1."""
VALIDATION = "pictovoc_validation"


@dataclass(frozen=True)
class Options:
    """Measures how T2I-PAL+'s constants may be chosen, and what it costs."""

    run: Uri = "runs/plus/sets/synthetic"
    """Run of the embedded world's images, with its features."""
    seeds: PositiveInt = 3
    """Of training, of which captions are held out, and which images come first."""
    rounds: PositiveInt = 5
    """Turns of the cost."""
    images_per_caption: PositiveInt = 6
    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures and prints."""
    options = parse(Options, arguments, __doc__)
    # First the cost: a process that is started from this one begins with its peak of memory.
    found = {"cost": cost(options), "choice": choice(options)}
    finish(found)
    worst = max(found["choice"]["constants"]["behind"])
    require(worst <= GAP, f"Choosing on synthetic images must cost {GAP} mAP at most, got {worst}.")
    return found


def load(options: Options, seed: int) -> tuple[Backbone, TrainingFeatures]:
    """The run's features as a seed sees them."""
    backbone = load_backbone(options.backbone)
    data = read_training_features(Store(options.run), feature_folder(backbone))
    rows = turned_rows(data.image_of_caption, 2 * seed)[:, : options.images_per_caption]
    return backbone, dataclasses.replace(data, image_of_caption=rows)


def settings(method: str, seed: int, **changes: Any) -> Recipe:
    """A recipe of the world with changes of its method."""
    names = load_vocabulary("voc2007")
    start = recipe(method, "pictovoc", names.class_names, names.prompt_names, seed)
    return override(start, {f"method.{name}": value for name, value in changes.items()})


def choice(options: Options) -> dict[str, Any]:
    """What choices on synthetic images and on validation scenes reach on the latter."""
    reached: dict[str, list[tuple[float, float, float]]] = {"constants": [], "weights too": []}
    for seed in range(options.seeds):
        backbone, data = load(options, seed)
        held = held_out_captions(data, FRACTION, seed)
        sets = [images_of(data, held), labelled(backbone, options)]
        found = []  # of each setting: constants, weights, mAP on synthetic and on labelled images
        for shrinkage in SHRINKAGES:
            varied = [*itertools.product(RIDGES, RATES)]
            recipes = [
                settings("t2ipal_plus", seed, shrinkage=shrinkage, ridge=ridge, discriminant_lr=lr)
                for ridge, lr in varied
            ]
            for constants, recognizer in zip(varied, trained(recipes, without_captions(data, held),
                                                             backbone)):  # fmt: skip
                seen = [scaled_parts(recognizer, each) for each in sets]
                for weights in itertools.product(WEIGHTS, repeat=2):
                    maps = [mAP(parts, weights, each) for parts, each in zip(seen, sets)]
                    found.append(((shrinkage, *constants), weights, *maps))
        usual = [each for each in found if each[1] == (1.0, 1.0)]
        config: Any = settings("t2ipal_plus", seed).method
        shipped = config.shrinkage, config.ridge, config.discriminant_lr
        default = next(each[3] for each in usual if each[0] == shipped)
        for name, rows in (("constants", usual), ("weights too", found)):
            ours, best = max(rows, key=lambda each: each[2]), max(rows, key=lambda each: each[3])
            print(
                f"seed {seed}, {name}: chosen on synthetic images {ours[:2]}, {ours[3]:.2f}; on "
                f"validation scenes {best[:2]}, {best[3]:.2f}; defaults {default:.2f}"
            )
            reached[name].append((ours[3], best[3], default))
    return {
        name: {
            "on_synthetic": [round(row[0], 2) for row in rows],
            "on_validation": [round(row[1], 2) for row in rows],
            "defaults": [round(row[2], 2) for row in rows],
            "behind": [round(row[1] - row[0], 2) for row in rows],
        }
        for name, rows in reached.items()
    }


def labelled(backbone: Backbone, options: Options) -> FeatureTable:
    """The validation scenes' features, kept beside the run."""
    place = Store(f"{options.run.rstrip('/')}-validation")
    return stored_features(load_test_set(VALIDATION), backbone, place).features


def trained(
    recipes: Sequence[Recipe], data: TrainingFeatures, backbone: Backbone
) -> list[Recognizer]:
    """All at once."""
    methods: list[Any] = [each.method.build(backbone, each.training.seed) for each in recipes]
    stack = Stack(methods, [each.training for each in recipes], data)
    stack.train()
    return [stack.recognizer(trial) for trial in range(len(recipes))]


def scaled_parts(recognizer: Recognizer, table: FeatureTable) -> list[torch.Tensor]:
    """Evidence, T2I-PAL's scores and zero-shot CLIP's, with the same spread."""
    scorer: Any = recognizer.scorer
    parts = scorer.parts(table.rows(slice(None)))
    return [part / spread for part, spread in zip(parts, scorer.spreads)]


def mAP(parts: Sequence[torch.Tensor], weights: Sequence[float], table: FeatureTable) -> float:
    """Percent, with some weights of the second and third part."""
    scores: Any = sum(weight * part for weight, part in zip((1.0, *weights), parts))
    labels = (table.labels > 0).numpy()
    return float(np.nanmean(average_precision(scores.numpy(), labels, skip_absent=True)))


def cost(options: Options) -> dict[str, Any]:
    """Medians of training and scoring, in turns, each in a process of its own."""
    found: dict[str, list[tuple[float, float, float, float]]] = {"t2ipal": [], "t2ipal_plus": []}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        for turn, method in itertools.product(range(options.rounds), found):
            found[method].append(pool.submit(one, options, method, turn).result())
    names = "training_s", "scoring_ms_per_1000", "peak_memory_mib", "recognizer_kib"
    told = {}
    for method, rows in found.items():
        columns = dict(zip(names, zip(*rows)))
        told[method] = {
            name: round(statistics.median(values), 1) for name, values in columns.items()
        }
        spread = {name: (round(min(values), 1), round(max(values), 1))
                  for name, values in columns.items()}  # fmt: skip
        print(f"{method}: {told[method]}, from ... to {spread}")
    return told


def one(options: Options, method: str, seed: int) -> tuple[float, float, float, float]:
    """Seconds of training, milliseconds of scoring, MiB at the peak, KiB of the recognizer."""
    torch.set_num_threads(1)
    backbone, data = load(options, seed)
    made = settings(method, seed)
    built: Any = made.method.build(backbone, seed)
    started = time.perf_counter()
    recognizer = fit(built, data, made.training).recognizer
    seconds = time.perf_counter() - started
    assert data.images is not None
    images = data.images.rows(slice(0, 1000))
    recognizer.scores(images)
    started = time.perf_counter()
    for _ in range(5):
        recognizer.scores(images)
    scoring = (time.perf_counter() - started) / 5 / len(images) * 1e6
    size = sum(each.nbytes for each in scorer_tensors(recognizer.scorer).values()) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return seconds, scoring, peak, size


if __name__ == "__main__":
    run_job(main)
