"""Ray Tune around `t2ipal.search.trials`: a trial is a function, its features are stored once.

Owns the translation to Tune's words and the table of results; knows nothing about the method.
"""

import contextlib
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch
from torch import Tensor

from t2ipal.config import override
from t2ipal.engine.waiting import signs_of_life, watch_workers
from t2ipal.features.sets import FeatureSet, TrainingFeatures
from t2ipal.methods.contract import FrozenBackbone
from t2ipal.search.space import Dimension, SearchConfig
from t2ipal.search.trials import SearchResult, Trial, run_trial, write_search
from t2ipal.store import Store, join_key
from t2ipal.training.recipes import Recipe
from t2ipal.training.validation import split_captions

Arrays = dict[str, np.ndarray | None]


def run_search(
    search: SearchConfig,
    recipe: Recipe,
    data: TrainingFeatures,
    load_backbone: Callable[[], FrozenBackbone],
    store: Store,
    folder: str = "tune",
    *,
    cpus_per_trial: float = 1,
    gpus_per_trial: float = 0,
    max_concurrent_trials: int | None = None,
    verbose: int = 0,
) -> SearchResult:
    """Runs all trials and writes their table; a failed trial is a row with its reason.

    Args:
        search: the checked space.
        recipe: everything that the space does not vary.
        data: captions and synthetic images; split here, into training and validation.
        load_backbone: called in every trial's process.
        store: home of the trials.
        folder: in the store; gets `trials.json`, `trials.csv`, `best.json`, and Tune's own logs
            (TensorBoard, CSV, JSON) under `trials/`.
        cpus_per_trial: cores a trial reserves.
        gpus_per_trial: GPUs a trial reserves; may be a fraction.
        max_concurrent_trials: None: as many as fit.
        verbose: Tune's progress report on the terminal, 0 to 2.

    Raises:
        RuntimeError: no trial started for too long.
    """
    watch, signs = watch_workers(1, cpus_per_trial, gpus_per_trial)
    train, validation = split_captions(data, search.validation_fraction, search.seed)
    # Tune puts each of these into the object store once, whatever the number of trials.
    trainable = tune.with_parameters(
        _trial,
        texts=_to_arrays(train.texts),
        images=_to_arrays(train.images),
        image_of_caption=train.image_of_caption.numpy(),
        validation=_to_arrays(validation),
        recipe=recipe,
        each_epoch=search.scheduler != "none",
        load_backbone=load_backbone,
        signs=signs,
    )
    with _log_folder(store, folder) as logs:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": cpus_per_trial, "gpu": gpus_per_trial}),
            param_space={dimension.path: _domain(dimension) for dimension in search.dimensions},
            tune_config=tune.TuneConfig(
                metric=search.metric,
                mode=search.mode,
                num_samples=search.num_samples,
                search_alg=_searcher(search),
                scheduler=_scheduler(search, recipe),
                max_concurrent_trials=max_concurrent_trials,
            ),
            run_config=tune.RunConfig(name="trials", storage_path=str(logs), verbose=verbose),
        )
        with watch.over():
            results = tuner.fit()
        trials = tuple(_collect(results[index], search, recipe) for index in range(len(results)))
    result = SearchResult(search, trials)
    write_search(result, store, folder)
    return result


@contextlib.contextmanager
def _log_folder(store: Store, folder: str) -> Iterator[Path]:
    """Where Tune writes: the run's own folder, or one whose files a bucket gets in the end."""
    if not store.is_bucket:
        yield Path(store.uri) / folder
        return
    with tempfile.TemporaryDirectory(prefix="t2ipal-tune-") as name:
        yield Path(name)
        for path in sorted(Path(name).rglob("*")):
            if path.is_file():
                place = path.relative_to(name).as_posix()
                store.write(join_key(folder, place), path.read_bytes())


def _trial(
    values: dict[str, Any],
    *,
    texts: Arrays,
    images: Arrays,
    image_of_caption: np.ndarray,
    validation: Arrays,
    recipe: Recipe,
    each_epoch: bool,
    load_backbone: Callable[[], FrozenBackbone],
    signs: str,
) -> None:
    train = TrainingFeatures(_from_arrays(texts), _from_arrays(images), _tensor(image_of_caption))
    with signs_of_life(signs):
        metrics = run_trial(
            override(recipe, values),
            train,
            _from_arrays(validation),
            load_backbone(),
            on_epoch=tune.report if each_epoch else None,
        )
        if not each_epoch:
            tune.report(metrics)


def _domain(dimension: Dimension) -> Any:
    values = list(dimension.values)
    match dimension.kind:
        case "grid":
            return tune.grid_search(values)
        case "choice":
            return tune.choice(values)
        case "uniform":
            return tune.uniform(*values)
        case "loguniform":
            return tune.loguniform(*values)
        case _:
            return tune.randint(values[0], values[1] + 1)  # Tune leaves the upper end out


def _searcher(search: SearchConfig) -> OptunaSearch | BasicVariantGenerator:
    if search.searcher == "optuna":
        return OptunaSearch(seed=search.seed)
    return BasicVariantGenerator(random_state=search.seed)


def _scheduler(search: SearchConfig, recipe: Recipe) -> ASHAScheduler | None:
    if search.scheduler == "none":
        return None
    epochs = recipe.training.num_epochs
    return ASHAScheduler(max_t=epochs, grace_period=max(1, epochs // 4), reduction_factor=2)


def _collect(result: Any, search: SearchConfig, recipe: Recipe) -> Trial:
    metrics = result.metrics or {}
    values = {name: result.config[name] for name in (d.path for d in search.dimensions)}
    score, loss = metrics.get("validation_mAP"), metrics.get("loss")
    status, reason = "ok", ""
    if result.error is not None:
        cause = getattr(result.error, "cause", None) or result.error
        status, reason = "failed", (str(cause).strip() or type(cause).__name__).splitlines()[-1]
    elif score is None or loss is None or not math.isfinite(loss):
        status, reason = "failed", f"no finite result: validation_mAP {score}, loss {loss}"
    elif search.scheduler != "none":
        epochs = override(recipe, values).training.num_epochs
        status = "ok" if metrics["training_iteration"] >= epochs else "stopped"
    return Trial(values, status, reason, score, loss, metrics.get("time_total_s"))


def _to_arrays(features: FeatureSet | None) -> Arrays:
    """Numpy arrays are mapped from the object store, without a copy in each trial."""
    values = {} if features is None else vars(features)
    return {n: v.numpy() if isinstance(v, Tensor) else v for n, v in values.items() if n != "keys"}


def _from_arrays(arrays: Arrays) -> FeatureSet:
    tensors = {name: None if array is None else _tensor(array) for name, array in arrays.items()}
    return FeatureSet(**tensors)  # type: ignore


def _tensor(array: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # read-only; nobody writes into features
        return torch.from_numpy(array)
