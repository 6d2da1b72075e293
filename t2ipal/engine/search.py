"""Ray Tune around `t2ipal.search.trials`: a trial is a function, its features are stored once.

Owns the translation to Tune's words; knows nothing about the method. A search that was stopped goes
on from the trials that are kept, never from Tune's own state, which is pickled.
"""

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from t2ipal.config import override
from t2ipal.engine.waiting import signs_of_life, watch_workers
from t2ipal.features.sets import FeatureTable, TrainingFeatures
from t2ipal.methods.contract import FrozenBackbone
from t2ipal.search.space import Dimension, SearchConfig, draw_settings
from t2ipal.search.trials import (
    LOGS,
    SearchResult,
    Trial,
    failed,
    finished,
    keep_trial,
    kept_trials,
    run_trial,
    trial_name,
    write_search,
)
from t2ipal.store import Store, join_key
from t2ipal.training.recipes import Recipe
from t2ipal.training.validation import split_captions


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
    """Runs the trials that are not finished yet, and writes the table of all.

    A failed trial is a row with its reason. So is one whose process was lost, but the same call
    runs it again. Where the call is stopped, the table has the trials that are finished.

    Args:
        search: the checked space.
        recipe: everything that the space does not vary.
        data: captions and synthetic images; split here, into training and validation.
        load_backbone: called in every trial's process.
        store: home of the trials.
        folder: in the store; gets `trials.json`, `trials.csv`, `best.json`, and under `trials/`
            what each trial gave, with Tune's own logs (TensorBoard, CSV, JSON).
        cpus_per_trial: cores a trial reserves.
        gpus_per_trial: GPUs a trial reserves; may be a fraction.
        max_concurrent_trials: None: as many as fit.
        verbose: Tune's progress report on the terminal, 0 to 2.

    Raises:
        RuntimeError: no trial started for too long.
    """
    trials = kept_trials(search, store, folder)
    waiting = [number for number in range(search.num_trials) if number not in trials]
    if not waiting:
        return SearchResult(search, _in_order(trials))
    watch, signs = watch_workers(1, cpus_per_trial, gpus_per_trial)
    keep = partial(keep_trial, store=store, folder=folder)
    trainable = _trainable(search, recipe, data, load_backbone, keep, signs)
    names = iter([trial_name(number) for number in waiting])
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths are the job's
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # it would wait for the trials
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failed trial is a row, not a page
    with _log_folder(store, folder) as logs:
        for number in waiting:  # Tune would append to what an unfinished one left
            shutil.rmtree(logs / LOGS / trial_name(number), ignore_errors=True)
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": cpus_per_trial, "gpu": gpus_per_trial}),
            param_space={dimension.path: _domain(dimension) for dimension in search.dimensions},
            tune_config=tune.TuneConfig(
                metric=search.metric,
                mode=search.mode,
                num_samples=len(waiting),
                search_alg=_searcher(search, trials, waiting),
                scheduler=_scheduler(search, recipe),
                max_concurrent_trials=max_concurrent_trials,
                trial_name_creator=lambda trial: next(names),
                trial_dirname_creator=str,
            ),
            run_config=tune.RunConfig(
                name=LOGS,
                storage_path=str(logs),
                verbose=verbose,
                callbacks=[] if search.scheduler == "none" else [_KeepStopped(recipe, keep)],
            ),
        )
        try:
            with watch.over():
                results = tuner.fit()
            trials = {number: _lost(results[index]) for index, number in enumerate(waiting)}
        finally:
            trials |= kept_trials(search, store, folder)
            result = SearchResult(search, _in_order(trials))
            if trials:
                write_search(result, store, folder)
    return result


def _trainable(
    search: SearchConfig,
    recipe: Recipe,
    data: TrainingFeatures,
    load_backbone: Callable[[], FrozenBackbone],
    keep: Callable[[Trial, int], None],
    signs: str,
) -> Any:
    """`_trial` with all that it needs beside its values."""
    # Tune puts each of these into the object store once. Of features that are not in memory these
    # are the names of files, which the trials of a machine map together.
    return tune.with_parameters(
        _trial,
        data=split_captions(data, search.validation_fraction, search.seed),
        recipe=recipe,
        each_epoch=search.scheduler != "none",
        load_backbone=load_backbone,
        keep=keep,
        signs=signs,
    )


def _in_order(trials: Mapping[int, Trial]) -> tuple[Trial, ...]:
    return tuple(trials[number] for number in sorted(trials))


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
    data: tuple[TrainingFeatures, FeatureTable],
    recipe: Recipe,
    each_epoch: bool,
    load_backbone: Callable[[], FrozenBackbone],
    keep: Callable[[Trial, int], None],
    signs: str,
) -> None:
    """Runs one trial; keeps what it gave before Tune hears of it, and may end this process."""
    number, started = int(tune.get_context().get_trial_name()), time.monotonic()
    with signs_of_life(signs):
        backbone = load_backbone()
        try:
            metrics = run_trial(
                override(recipe, values),
                *data,
                backbone,
                on_epoch=tune.report if each_epoch else None,
            )
        except Exception as error:
            keep(failed(values, error), number)
            raise
        keep(finished(values, metrics, time.monotonic() - started), number)
        tune.report(metrics)


class _KeepStopped(tune.Callback):
    """Keeps what the trials gave that the scheduler stopped: these never come to their own end."""

    def __init__(self, recipe: Recipe, keep: Callable[[Trial, int], None]):
        self.recipe, self.keep = recipe, keep

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune, also for trials that ran to their end."""
        values, last = trial.config, trial.last_result
        if last["training_iteration"] < override(self.recipe, values).training.num_epochs:
            stopped = finished(values, last, last["time_total_s"], "stopped")
            self.keep(stopped, int(trial.custom_trial_name))


def _lost(result: Any) -> Trial:
    """The row of a trial that left nothing: its process ended, or never came to train."""
    error = result.error
    return failed(result.config, getattr(error, "cause", None) or error or "it gave no result")


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


def _searcher(
    search: SearchConfig, trials: Mapping[int, Trial], waiting: Sequence[int]
) -> OptunaSearch | BasicVariantGenerator:
    """Suggests the trials that wait; Optuna learns of the others first."""
    if search.searcher != "optuna":
        settings = draw_settings(search)
        return BasicVariantGenerator(points_to_evaluate=[settings[number] for number in waiting])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = [trial for trial in trials.values() if trial.status != "failed"]
    return OptunaSearch(
        seed=search.seed + len(trials),  # with the same one it would suggest the same values again
        points_to_evaluate=[dict(trial.values) for trial in known],
        evaluated_rewards=[getattr(trial, search.metric) for trial in known],
    )


def _scheduler(search: SearchConfig, recipe: Recipe) -> ASHAScheduler | None:
    if search.scheduler == "none":
        return None
    epochs = recipe.training.num_epochs
    return ASHAScheduler(max_t=epochs, grace_period=max(1, epochs // 4), reduction_factor=2)
