"""Ray Train around `t2ipal.training.runs`: any number of workers, started anew when lost.

Everything that is kept lies in the run's own store, checkpoints included: Ray's storage holds only
its notes about the workers, in a temporary folder of the driver's machine.
"""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from typing import Any

import ray.train
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer
from tqdm import tqdm

from t2ipal.config import fingerprint, require
from t2ipal.engine.config import TrainingGroup
from t2ipal.engine.waiting import signs_of_life, watch_workers
from t2ipal.halting import halt_if_asked
from t2ipal.training.loop import EpochRecord
from t2ipal.training.plans import TrainingRun
from t2ipal.training.runs import TrainingWork, epoch_bar, train_work

BAR_PAUSE_S = 0.5
HALT_LOOK_S = 1.0
"""Between two looks whether training is to halt."""
ANSWER_S = 10.0
"""In which an actor without work of its own must answer."""
IN_VAIN = (ValueError, PermissionError)
"""Errors of a worker that the next one would meet too: its input is not what it must be."""


def on_ray(
    work: TrainingWork,
    *,
    num_workers: int | tuple[int, int] = 1,
    use_gpu: bool = False,
    cpus_per_worker: float = 1,
    max_failures: int = TrainingGroup.max_failures,
) -> None:
    """Trains the runs of `work`, each by all workers together.

    Args:
        work: what to train, and where to.
        num_workers: processes that share each batch, or the fewest and the most of them; the
            objective does not depend on it.
        use_gpu: one GPU a worker.
        cpus_per_worker: cores, and threads, of each.
        max_failures: how often in a row the workers may be lost before a further epoch is done.

    Raises:
        RuntimeError: workers were lost more often, what they read is not what it must be, or none
            started for too long.
    """
    least = num_workers[0] if isinstance(num_workers, tuple) else num_workers
    require(least > 0, f"num_workers must be > 0, got {num_workers}.")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths are the job's
    # Otherwise the controller asks for reports only every 2 s, longer than a small run takes.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    watch, signs = watch_workers(least, cpus_per_worker, float(use_gpu), together=True)
    progress = _Progress.remote()
    scaling = ScalingConfig(
        num_workers=num_workers,
        use_gpu=use_gpu,
        resources_per_worker={"CPU": cpus_per_worker},
    )
    with tempfile.TemporaryDirectory(prefix="t2ipal-train-") as notes, _bar(work, progress):
        failures = reached = 0
        while True:
            trainer = TorchTrainer(
                _worker,
                train_loop_config={"work": work, "progress": progress, "signs": signs},
                scaling_config=scaling,
                run_config=RunConfig(
                    name=fingerprint(work.settings),
                    storage_path=notes,
                    failure_config=FailureConfig(max_failures=0),  # they are counted here
                ),
            )
            # Ray reserves machines under this name for an elastic group, and for three minutes
            # after its driver was killed: the next driver of the same work takes them over.
            place = fingerprint({"store": work.store.uri, "folder": work.folder})
            object.__setattr__(trainer.train_run_context, "run_id", place)
            try:
                with watch.over():
                    return _fit(trainer)
            except (TrainingFailedError, RayActorError) as error:  # the latter: of its controller
                before, reached = reached, max(reached, _read(progress))
                failures = failures + 1 if reached == before else 1
                if failures > max_failures or any(map(_in_vain, _failures(error))):
                    raise RuntimeError(f"Training failed: {_reason(error)}") from error
                lost = f"Workers were lost; their training goes on. {_reason(error)}"
                tqdm.write(lost, sys.stderr)


def _fit(trainer: TorchTrainer) -> None:
    """Not in the main thread, where Ray would take Ctrl-C for itself and end the process late."""
    ended: Future[Any] = Future()

    def fit() -> None:
        try:
            ended.set_result(trainer.fit())
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=fit, daemon=True).start()
    while not ended.done():
        halt_if_asked()  # the last checkpoint is seconds old
        wait([ended], HALT_LOOK_S)
    ended.result()


def _failures(error: BaseException) -> list[Any]:
    """What workers raised, first that for which others are started in vain."""
    failures = getattr(error, "worker_failures", {}).values()
    return sorted(failures, key=_in_vain, reverse=True)


def _in_vain(failure: BaseException) -> bool:
    return isinstance(getattr(failure, "_base_exc", failure), IN_VAIN)  # Ray wraps what was raised


def _reason(error: BaseException) -> str:
    """What a worker raised, in one line where Ray tells it; the tracebacks are in the error."""
    failures = map(str, _failures(error))
    lines = [failure.strip().splitlines()[-1] for failure in failures if failure.strip()]
    return lines[0] if lines else str(error.__cause__ or error)


@ray.remote(num_cpus=0, max_restarts=-1)
class _Progress:
    """Knows how far the workers are, to be shown where they were asked for.

    One that is lost starts anew with nothing done, until it hears of the next epoch.
    """

    def __init__(self) -> None:
        self.reached = 0

    def reach(self, epochs: int) -> None:
        """So many epochs of all runs are done."""
        self.reached = max(epochs, self.reached)

    def read(self) -> int:
        """How many are done."""
        return self.reached


def _read(progress: Any) -> int:
    try:
        return ray.get(progress.read.remote(), timeout=ANSWER_S)
    except (RayActorError, TimeoutError):
        return 0  # it was lost, too


@contextlib.contextmanager
def _bar(work: TrainingWork, progress: Any) -> Iterator[None]:
    """A bar inside the `with` block, which follows the progress."""
    ended = threading.Event()
    with epoch_bar(work) as bar:

        def follow() -> None:
            while not ended.wait(BAR_PAUSE_S):
                bar.update(max(_read(progress) - bar.n, 0))

        watcher = threading.Thread(target=follow, daemon=True)
        if not bar.disable:
            watcher.start()
        try:
            yield
        finally:
            ended.set()
            if not bar.disable:
                watcher.join()


def _worker(config: dict[str, Any]) -> None:
    context, progress, work = ray.train.get_context(), config["progress"], config["work"]
    rank = context.get_world_rank()
    earlier, start = {}, 0  # epochs of the runs before
    for run in work.runs:
        earlier[run.name] = start
        start += run.recipe.training.num_epochs
    leaving = False

    def on_epoch(run: TrainingRun, record: EpochRecord) -> None:
        nonlocal leaving
        if rank == 0:
            progress.reach.remote(earlier[run.name] + record.epoch + 1)
        # On every worker, for they wait for each other in it.
        leaving = ray.train.get_preemption_info() is not None

    with signs_of_life(config["signs"]):
        train_work(
            work,
            rank=rank,
            world_size=context.get_world_size(),
            on_epoch=on_epoch,
            is_leaving=lambda: leaving,
        )
