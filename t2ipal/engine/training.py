"""Ray Train around `t2ipal.training.fit`: several runs in one call, any number of workers.

Owns where runs and checkpoints live; decides nothing about the method.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.torch import TorchTrainer

from t2ipal.config import differences, fingerprint, require, to_dict
from t2ipal.features import TrainingFeatures
from t2ipal.methods import T2IPAL
from t2ipal.prompts import PromptEncoder
from t2ipal.recipes import Recipe
from t2ipal.recognizer import Recognizer
from t2ipal.training import CHECKPOINT_NAME, EpochRecord, FitResult, fit


@dataclass(frozen=True)
class TrainingRun:
    """One recognizer to train."""

    name: str
    """Names its folder, e.g. `t2ipal-seed0`."""
    recipe: Recipe


SETTINGS, FINISHED = "settings.json", "history.json"

LoadInputs = Callable[[], tuple[PromptEncoder, TrainingFeatures]]


def train_runs(
    runs: Sequence[TrainingRun],
    load_inputs: LoadInputs,
    output_dir: Path | str,
    *,
    inputs: Mapping[str, Any],
    num_workers: int = 1,
    use_gpu: bool = False,
    checkpoint_epochs: int = 10,
    max_failures: int = 2,
    storage_uri: str | None = None,
) -> dict[str, FitResult]:
    """Trains `runs` one after the other, each by all workers together.

    The same call again goes on where it was left, and does nothing where all was done.

    Args:
        runs: what to train.
        load_inputs: gives the backbone and the features; called in every worker, so that neither
            travels through the driver.
        output_dir: gets a folder per run with its recognizer, `settings.json`, `history.json`.
        inputs: what the backbone and the features are (their settings and counts, plain values):
            stored with each run, so that a run on other inputs is never taken for this one.
        num_workers: 0 runs in this process, without a cluster.
        use_gpu: one GPU a worker.
        checkpoint_epochs: epochs between two checkpoints in Ray's storage; each may take seconds.
        max_failures: how often a lost worker group is started anew.
        storage_uri: where Ray keeps checkpoints, a shared folder or s3://; None: `output_dir/ray`.

    Raises:
        ValueError: a folder there that holds a run of other settings.
        RuntimeError: a worker failed more often than `max_failures`.
    """
    names = [run.name for run in runs]
    require(len(runs) > 0, "There must be runs to train, got none.")
    require(len(set(names)) == len(names), f"Runs need names of their own, got {names}.")
    require(num_workers >= 0, f"num_workers must be >= 0, got {num_workers}.")
    require(checkpoint_epochs > 0, f"checkpoint_epochs must be > 0, got {checkpoint_epochs}.")
    output_dir = Path(output_dir).resolve()
    settings = {run.name: {"recipe": to_dict(run.recipe), "inputs": dict(inputs)} for run in runs}
    if all([_is_done(output_dir / name, settings[name]) for name in names]):
        return {name: load_run(output_dir / name) for name in names}
    output_dir.mkdir(parents=True, exist_ok=True)
    experiment = fingerprint(settings)
    # Otherwise the controller asks for reports only every 2 s, longer than a small run takes.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "runs": list(runs),
            "load_inputs": load_inputs,
            "checkpoint_epochs": checkpoint_epochs,
            "settings": settings,
            "folder": str(output_dir / "ray" / experiment) if num_workers == 0 else None,
        },
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name=experiment,
            storage_path=storage_uri or str(output_dir / "ray"),
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise RuntimeError(f"Training failed: {error.__cause__ or error}") from error
    assert result.checkpoint is not None
    without_checkpoints = shutil.ignore_patterns(f"{CHECKPOINT_NAME}*")
    with result.checkpoint.as_directory() as folder:
        for name in names:
            target = output_dir / name
            shutil.copytree(
                Path(folder) / name, target, dirs_exist_ok=True, ignore=without_checkpoints
            )
    return {name: load_run(output_dir / name) for name in names}


def load_run(directory: Path | str) -> FitResult:
    """A finished run's folder as what `fit` gave.

    Raises:
        FileNotFoundError: no finished run there.
    """
    recognizer = Recognizer.load(directory)
    content = json.loads((Path(directory) / FINISHED).read_text())
    history = tuple(EpochRecord(**record) for record in content["history"])
    return FitResult(recognizer, history, content["seconds"])


def _worker(config: dict[str, Any]) -> None:
    """Runs on every worker; all reports are made by all of them, which Ray Train requires."""
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    backbone, data = config["load_inputs"]()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(config["folder"] or scratch)
        restored = ray.train.get_checkpoint()
        if restored is not None:
            with restored.as_directory() as stored:
                shutil.copytree(stored, folder, dirs_exist_ok=True)
        waiting = [run for run in config["runs"] if not (folder / run.name / FINISHED).exists()]

        def report(name: str, epoch: int) -> None:
            checkpoint = Checkpoint.from_directory(folder) if rank == 0 else None
            ray.train.report({"run": name, "epoch": epoch}, checkpoint=checkpoint)

        def report_midway(run: TrainingRun, record: EpochRecord) -> None:
            done = record.epoch + 1
            if done % config["checkpoint_epochs"] == 0 and done < run.recipe.training.num_epochs:
                report(run.name, done)

        for run in waiting:
            training = run.recipe.training
            method = T2IPAL(run.recipe.method, backbone, seed=training.seed)
            result = fit(
                method,
                data,
                training,
                checkpoint_dir=folder / run.name,
                rank=rank,
                world_size=world_size,
                on_epoch=partial(report_midway, run),
            )
            if rank == 0:
                _save_run(result, config["settings"][run.name], folder / run.name)
            report(run.name, training.num_epochs)
        if not waiting:
            report("", 0)  # so that the caller gets a checkpoint to read from


def _save_run(result: FitResult, settings: dict[str, Any], directory: Path) -> None:
    """The recognizer and, last, the history whose presence says that the run is finished."""
    result.recognizer.save(directory)
    (directory / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")
    content = {"history": [asdict(record) for record in result.history], "seconds": result.seconds}
    unfinished = directory / (FINISHED + ".part")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(unfinished, directory / FINISHED)


def _is_done(directory: Path, settings: dict[str, Any]) -> bool:
    if not (directory / SETTINGS).is_file():
        return False
    changed = differences(settings, json.loads((directory / SETTINGS).read_text()))
    require(
        not changed,
        f"{directory} holds a run of other settings ({'; '.join(changed)}). Use another output "
        "folder or remove it.",
    )
    return (directory / FINISHED).is_file()
