"""Fits of the claims and choices: one recognizer a task, in processes of one thread each.

Owns where fixed features and finished fits are kept; knows nothing of what is compared.
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from t2ipal.evaluation.evaluate import evaluate
from t2ipal.evaluation.test_sets import scene_features
from t2ipal.experiments.claims_table import Setting
from t2ipal.features.backbone import Backbone, load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.extraction import feature_folder
from t2ipal.features.reading import read_training_features
from t2ipal.features.sets import FeatureSet, TrainingFeatures
from t2ipal.pictovoc.worlds import ImagesAndLabels
from t2ipal.store import Store, read_arrays, write_arrays
from t2ipal.training.loop import fit
from t2ipal.training.recipes import Recipe


@dataclass(frozen=True)
class Task:
    """One fit, with all that a worker needs to do it."""

    key: str
    """Differs wherever the result would."""
    setting: Setting
    recipe: Recipe
    output: str
    backbone: BackboneConfig
    features: str
    """Folder of the backbone's features in every store."""
    test_sets: tuple[str, ...]


_backbone = cache(load_backbone)


@lru_cache(maxsize=1)
def _training_features(
    output: str, images: str, choice: str | None, folder: str
) -> TrainingFeatures:
    if not images.startswith("labeled-"):
        return read_training_features(Store(f"{output}/{images}"), folder, choice)
    scenes = _read_features(output, f"{folder}/{images}.safetensors")
    return TrainingFeatures(scenes, scenes, torch.arange(len(scenes)).unsqueeze(1))


@cache
def _read_features(output: str, key: str) -> FeatureSet:
    arrays, _ = read_arrays(Store(output), key)
    columns: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return FeatureSet(mask=None, **columns)


def store_scenes(
    store: Store, name: str, backbone: Backbone, draw: Callable[[], ImagesAndLabels]
) -> None:
    """Stores the features and labels of a fixed set of scenes, unless they are there."""
    key = f"{feature_folder(backbone)}/{name}.safetensors"
    if not store.exists(key):
        columns = vars(scene_features(backbone, draw())).items()
        write_arrays(store, key, {name: c.numpy() for name, c in columns if c is not None})


def train_one(task: Task) -> dict[str, Any]:
    """Trains one recognizer and measures it: a row of fits.jsonl."""
    backbone, training = _backbone(task.backbone), task.recipe.training
    chosen = task.setting.images, task.setting.choice
    data = _training_features(task.output, *chosen, task.features)
    if (count := task.setting.num_captions) is not None:
        texts = data.texts.subset(torch.arange(count))
        data = TrainingFeatures(texts, data.images, data.image_of_caption[:count])
    method = task.recipe.method.build(backbone, training.seed)
    result = fit(method, data, training)
    maps = {}
    for name in task.test_sets:
        test = _read_features(task.output, f"{task.features}/test-{name}.safetensors")
        maps[name] = evaluate(result.recognizer, test).mAP
    identity = {"key": task.key, "features": task.features, **asdict(task.setting)}
    outcome = {"seed": training.seed, "mAP": maps, "seconds": round(result.seconds, 2)}
    return {**identity, **outcome}


def read_fits(path: Path) -> dict[str, dict[str, Any]]:
    """Key -> row of all finished fits; a line that was cut off is dropped from the file too."""
    text = path.read_text() if path.is_file() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return {row["key"]: row for row in map(json.loads, whole.splitlines())}


def train_all(tasks: Sequence[Task], path: Path, num_workers: int) -> dict[str, dict[str, Any]]:
    """Key -> row of every task; what `path` lacks is trained and added to it."""
    done = read_fits(path)
    waiting = [task for task in tasks if task.key not in done]
    bar = tqdm(total=len(tasks), initial=len(tasks) - len(waiting), unit="fit", desc="training")

    def add(row: dict[str, Any]) -> None:
        done[row["key"]] = row
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        bar.update()

    with bar:
        if num_workers == 0:
            for task in waiting:
                add(train_one(task))
        elif waiting:
            pool = ProcessPoolExecutor(
                num_workers, get_context("spawn"), torch.set_num_threads, (1,)
            )
            try:
                for future in as_completed([pool.submit(train_one, task) for task in waiting]):
                    add(future.result())
            finally:
                pool.shutdown(cancel_futures=True)
    return done
