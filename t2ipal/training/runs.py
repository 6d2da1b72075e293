"""Trained recognizers in a store: which runs wait, where each ends, how a broken-off one goes on.

A run's folder holds `settings.json`, `recognizer.json` and `.safetensors`, and `history.json`,
whose presence says that it is finished; until then `checkpoint.pt`. All of it lies in a store, so
that a machine may vanish. Knows no Ray: whoever starts several workers hands them a `TrainingWork`.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from tqdm import tqdm

from t2ipal.config import differences, fingerprint, require, to_dict
from t2ipal.features.sets import TrainingFeatures
from t2ipal.methods.contract import FrozenBackbone
from t2ipal.methods.recognizer import SETTINGS
from t2ipal.methods.stored import load_recognizer
from t2ipal.store import Store, damaged, join_key, json_bytes, read_json
from t2ipal.training.captions import captions_for
from t2ipal.training.loop import EpochRecord, FitResult, agreed, fit
from t2ipal.training.plans import TrainingRun

FINISHED, CHECKPOINT = "history.json", "checkpoint.pt"
CHECKPOINT_PAUSE_S = 10.0
"""Between two checkpoints of a run: no more work than this is lost."""

LoadInputs = Callable[[], tuple[FrozenBackbone, TrainingFeatures]]
"""Gives the backbone and the features; called in every worker, so that neither travels."""
OnEpoch = Callable[[TrainingRun, EpochRecord], Any]
IsLeaving = Callable[[], bool]
"""Whether a machine on which this work runs is about to be taken away."""


@dataclass(frozen=True)
class TrainingWork:
    """Everything that a worker needs to train some runs one after the other."""

    runs: tuple[TrainingRun, ...]
    load_inputs: LoadInputs
    store: Store
    folder: str
    """In the store; each run has a folder of its name in it."""
    settings: Mapping[str, Any]
    """Plain values of each run by its name, kept beside its recognizer."""
    earlier: str
    """Prefix below which versions before this one kept their checkpoints of the same work."""
    checkpoint_pause_s: float = CHECKPOINT_PAUSE_S


Workers = Callable[[TrainingWork], None]
"""`in_process`, or `t2ipal.engine.training.on_ray` with its number of workers filled in."""


class StoredCheckpoints:
    """The checkpoint of one run in a store, not written more often than every few seconds."""

    def __init__(self, work: TrainingWork, name: str, is_leaving: IsLeaving = lambda: False):
        self.work, self.name, self.is_leaving = work, name, is_leaving
        self.key = join_key(join_key(work.folder, name), CHECKPOINT)
        self._last = time.monotonic()

    def __str__(self) -> str:
        return f"{self.work.store.uri}/{self.key}"

    def read(self) -> bytes | None:
        """The last one; None where there is none."""
        store = self.work.store
        if store.exists(self.key):
            return store.read(self.key)
        ending = f"/{self.name}/{CHECKPOINT}"
        earlier = [key for key in store.list(self.work.earlier) if key.endswith(ending)]
        return store.read(earlier[-1]) if earlier else None

    def write(self, data: bytes) -> None:
        """Replaces it; the settings that it was made with lie beside it."""
        _keep_settings(self.work, self.name)
        self.work.store.write(self.key, data)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Removes it, where there is one and this process may."""
        with contextlib.suppress(PermissionError):
            self.work.store.delete(self.key)

    def is_due(self, is_last: bool) -> bool:
        """Not for the last epoch, after which the recognizer is written."""
        has_rested = time.monotonic() - self._last >= self.work.checkpoint_pause_s
        return not is_last and (has_rested or self.is_leaving())


def train_work(
    work: TrainingWork,
    *,
    rank: int = 0,
    world_size: int = 1,
    on_epoch: OnEpoch | None = None,
    is_leaving: IsLeaving = lambda: False,
) -> None:
    """What every worker does: trains the unfinished runs; rank 0 writes what they leave.

    Args:
        work: what to train.
        rank: this worker's number.
        world_size: how many workers there are.
        on_epoch: called on every worker after each epoch.
        is_leaving: asked on rank 0 after each epoch; then there is a checkpoint after each.
    """
    backbone, data = work.load_inputs()
    for run in work.runs:
        folder = join_key(work.folder, run.name)
        done = rank == 0 and work.store.exists(join_key(folder, FINISHED))
        if agreed(done, world_size):
            continue
        training, checkpoints = run.recipe.training, StoredCheckpoints(work, run.name, is_leaving)
        result = fit(
            run.recipe.method.build(backbone, training.seed),
            captions_for(run.recipe, data, backbone),
            training,
            checkpoints=checkpoints,
            rank=rank,
            world_size=world_size,
            on_epoch=None if on_epoch is None else partial(on_epoch, run),
        )
        if rank == 0:
            _keep_settings(work, run.name)
            result.recognizer.save(work.store, folder)
            history = [asdict(record) for record in result.history]
            content = {"history": history, "seconds": result.seconds}
            work.store.write(join_key(folder, FINISHED), json_bytes(content))
            checkpoints.remove()


def _keep_settings(work: TrainingWork, name: str) -> None:
    """Not before there is something of the run: settings that could not be trained bind nobody."""
    key = join_key(join_key(work.folder, name), SETTINGS)
    work.store.write(key, json_bytes(work.settings[name]))


def in_process(work: TrainingWork) -> None:
    """Trains here, in one process and without Ray."""
    with epoch_bar(work) as bar:
        train_work(work, on_epoch=lambda *_: bar.update())


def epoch_bar(work: TrainingWork) -> tqdm:
    """A bar over all epochs of the work; none where nobody watches."""
    total = sum(run.recipe.training.num_epochs for run in work.runs)
    return tqdm(total=total, desc="training", unit="epoch", disable=None)


def train_runs(
    runs: Sequence[TrainingRun],
    load_inputs: LoadInputs,
    store: Store,
    folder: str = "train",
    *,
    inputs: Mapping[str, Any],
    workers: Workers = in_process,
    checkpoint_pause_s: float = CHECKPOINT_PAUSE_S,
) -> dict[str, FitResult]:
    """Trains `runs` one after the other, each by all workers together.

    The same call again goes on where it was left, and does nothing where all was done.

    Args:
        runs: what to train.
        load_inputs: gives the backbone and the features.
        store: gets a folder per run.
        folder: of those folders in the store.
        inputs: what the backbone and the features are (their settings and counts, plain values):
            stored with each run, so that a run on other inputs is never taken for this one.
        workers: who trains.
        checkpoint_pause_s: seconds between two checkpoints.

    Raises:
        ValueError: a folder there that holds a run of other settings.
        RuntimeError: workers failed for good.
    """
    names = [run.name for run in runs]
    require(len(runs) > 0, "There must be runs to train, got none.")
    require(len(set(names)) == len(names), f"Runs need names of their own, got {names}.")
    settings = {run.name: {"recipe": to_dict(run.recipe), "inputs": dict(inputs)} for run in runs}
    waiting = [run for run in runs if not _is_done(store, join_key(folder, run.name), settings)]
    if waiting:
        earlier = join_key(folder, f"ray/{fingerprint(settings)}/")
        workers(
            TrainingWork(
                tuple(waiting), load_inputs, store, folder, settings, earlier, checkpoint_pause_s
            )
        )
    return {name: load_run(store, join_key(folder, name)) for name in names}


def load_run(store: Store, folder: str) -> FitResult:
    """A finished run's folder as what `fit` gave.

    Raises:
        FileNotFoundError: no finished run there.
    """
    recognizer = load_recognizer(store, folder)
    return FitResult(recognizer, *load_history(store, folder))


def load_history(store: Store, folder: str) -> tuple[tuple[EpochRecord, ...], float]:
    """The losses of a finished run's epochs, and the seconds that it took."""
    key = join_key(folder, FINISHED)
    content = read_json(store, key, "train")
    try:
        history = tuple(EpochRecord(**record) for record in content["history"])
        numbers = [content["seconds"], *(n for record in history for n in vars(record).values())]
        sum(numbers)  # raises where one is none
        return history, content["seconds"]
    except (KeyError, TypeError) as error:
        raise ValueError(damaged(store, key, "train")) from error


def _is_done(store: Store, folder: str, settings: Mapping[str, Any]) -> bool:
    key = join_key(folder, SETTINGS)
    if not store.exists(key):
        return False
    changed = differences(settings[folder.rpartition("/")[2]], read_json(store, key, "train"))
    require(
        not changed,
        f"{store.uri}/{folder} holds a run of other settings ({'; '.join(changed)}). Use another "
        "output folder or remove it.",
    )
    return store.exists(join_key(folder, FINISHED))
