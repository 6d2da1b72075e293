"""A search at commit 8b9862c: Ray Tune over trials of a process each.

A copy of that day's `t2ipal/training.py`, `evaluation.py`, `search.py` and `engine/search.py`,
without checkpoints, several workers and what writes tables. A trial's settings are given, so that
today's search can have the same; the captions come already split.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from ray import tune  # noqa: TID251
from ray.tune.search.basic_variant import BasicVariantGenerator  # noqa: TID251
from torch import Tensor

from benchmarks.search_before.method import T2IPAL, Recognizer
from benchmarks.search_before.scoring import TextTower
from t2ipal.config import override
from t2ipal.evaluation.metrics import average_precision
from t2ipal.features.sets import FeatureSet, TrainingFeatures
from t2ipal.methods.t2ipal import T2IPALConfig
from t2ipal.training.loop import TrainingConfig, choose_images, epoch_generator, usable_images
from t2ipal.training.recipes import Recipe

Arrays = dict[str, np.ndarray | None]


def run_search(
    settings: Sequence[Mapping[str, Any]],
    recipe: Recipe,
    train: TrainingFeatures,
    validation: FeatureSet,
    load_backbone: Callable[[], Any],
    output_dir: Path | str,
) -> list[dict[str, Any]]:
    """Runs a trial for each setting on a core of its own; their metrics, in the same order."""
    # Tune puts each of these into the object store once, whatever the number of trials.
    trainable = tune.with_parameters(
        _trial,
        texts=_to_arrays(train.texts),
        images=_to_arrays(train.images),
        image_of_caption=train.image_of_caption.numpy(),
        validation=_to_arrays(validation),
        recipe=recipe,
        load_backbone=load_backbone,
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1, "gpu": 0}),
        param_space={name: tune.uniform(0, 1) for name in settings[0]},
        tune_config=tune.TuneConfig(
            metric="validation_mAP",
            mode="max",
            num_samples=len(settings),
            search_alg=BasicVariantGenerator(points_to_evaluate=[dict(s) for s in settings]),
        ),
        run_config=tune.RunConfig(
            name="trials", storage_path=str(Path(output_dir).resolve()), verbose=1
        ),
    )
    results = tuner.fit()
    found = []
    for index in range(len(results)):
        result = results[index]
        if result.error is not None:
            raise RuntimeError(f"A trial of the search of before failed: {result.error}")
        values = {name: (result.config or {})[name] for name in settings[0]}
        found.append({**(result.metrics or {}), "values": values})
    return [next(row for row in found if row["values"] == dict(each)) for each in settings]


def _trial(
    values: dict[str, Any],
    *,
    texts: Arrays,
    images: Arrays,
    image_of_caption: np.ndarray,
    validation: Arrays,
    recipe: Recipe,
    load_backbone: Callable[[], Any],
) -> None:
    train = TrainingFeatures(_from_arrays(texts), _from_arrays(images), _tensor(image_of_caption))
    tune.report(
        run_trial(
            override(recipe, values),
            train,
            _from_arrays(validation),
            TextTower(load_backbone()),
        )
    )


def run_trial(
    recipe: Recipe, train: TrainingFeatures, validation: FeatureSet, backbone: TextTower
) -> dict[str, float]:
    """Trains one setting and gives its metrics."""
    config = cast(T2IPALConfig, recipe.method)
    method = T2IPAL(config, backbone, seed=recipe.training.seed)
    recognizer, losses = fit(method, train, recipe.training)
    return {"validation_mAP": evaluate(recognizer, validation), "loss": losses[-1]}


def fit(
    method: T2IPAL, data: TrainingFeatures, config: TrainingConfig
) -> tuple[Recognizer, list[float]]:
    """Trains `method` in place; its recognizer, and the mean loss of each epoch."""
    images_of = usable_images(data, config)
    optimizer = make_optimizer(method, config)
    history: list[float] = []
    device = next(method.parameters()).device
    for epoch in range(config.num_epochs):
        generator = epoch_generator(config.seed, epoch)
        order = torch.randperm(len(data.texts), generator=generator)
        chosen = choose_images(images_of, generator)
        _set_lr(optimizer, config, epoch)
        sums, steps = torch.zeros(3, device=device), 0
        for batch in order.split(config.batch_size):
            image_rows = chosen[batch]
            with_image = int((image_rows >= 0).sum())
            losses = method.loss(
                _rows(data.images, image_rows[image_rows >= 0], device),
                _rows(data.texts, batch, device),
                num_images=max(with_image, 1),
                num_texts=len(batch),
            )
            optimizer.zero_grad()
            losses.total.backward()
            optimizer.step()
            sums, steps = sums + torch.stack(losses).detach(), steps + 1
        history.append((sums / steps).tolist()[0])
    return method.export(), history


def make_optimizer(method: T2IPAL, config: TrainingConfig) -> torch.optim.SGD:
    """SGD over everything learned; the prototypes are a group of their own."""
    others = [p for p in method.parameters() if p is not method.prototypes]
    groups = [
        {"params": others, "peak_lr": config.lr},
        {"params": [method.prototypes], "peak_lr": config.prototype_lr or config.lr},
    ]
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )


def _set_lr(optimizer: torch.optim.SGD, config: TrainingConfig, epoch: int) -> None:
    warm = epoch < config.warmup_epochs
    cosine = (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / config.num_epochs)) / 2
    for group in optimizer.param_groups:
        group["lr"] = config.warmup_lr if warm else group["peak_lr"] * cosine


def _rows(features: Any, rows: Int[Tensor, " batch"], device: torch.device) -> FeatureSet:
    return features.rows(rows).to(device)


@torch.no_grad()
def evaluate(recognizer: Recognizer, images: FeatureSet, batch_size: int = 1024) -> float:
    """mAP in percent; over classes that an image shows, as the search has it today."""
    parts = [
        recognizer.predict(images.rows(slice(start, start + batch_size))).cpu()
        for start in range(0, len(images), batch_size)
    ]
    scores: NDArray[np.float32] = torch.cat(parts).float().numpy()
    labels = images.labels.cpu().numpy()
    shown = labels.any(axis=0)
    return float(average_precision(scores[:, shown], labels[:, shown]).mean())


def _to_arrays(features: Any) -> Arrays:
    """Numpy arrays are mapped from the object store, without a copy in each trial."""
    return {
        name: None if value is None else value.numpy() for name, value in vars(features).items()
    }


def _from_arrays(arrays: Arrays) -> FeatureSet:
    tensors = {name: None if array is None else _tensor(array) for name, array in arrays.items()}
    return FeatureSet(**tensors)  # type: ignore


def _tensor(array: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # read-only; nobody writes into features
        return torch.from_numpy(array)
