"""Ray Train around `t2ipal.training.runs`: any number of workers, started anew when lost.

Everything that is kept lies in the run's own store, checkpoints included: Ray's storage holds only
its notes about the workers, in a temporary folder of the driver's machine.
"""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer

from t2ipal.config import fingerprint, require
from t2ipal.engine.waiting import signs_of_life, watch_workers
from t2ipal.training.runs import TrainingWork, epoch_bar, train_work

BAR_PAUSE_S = 0.5


def on_ray(
    work: TrainingWork, *, num_workers: int = 1, use_gpu: bool = False, max_failures: int = 2
) -> None:
    """Trains the runs of `work`, each by all workers together.

    Args:
        work: what to train, and where to.
        num_workers: processes that share each batch; the objective does not depend on it.
        use_gpu: one GPU a worker.
        max_failures: how often a lost worker group is started anew.

    Raises:
        RuntimeError: a worker failed more often than `max_failures`, or none started for too long.
    """
    require(num_workers > 0, f"num_workers must be > 0, got {num_workers}.")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths are the job's
    # Otherwise the controller asks for reports only every 2 s, longer than a small run takes.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    counter = _Counter.remote()
    watch, signs = watch_workers(num_workers, 1, float(use_gpu), together=True)
    with tempfile.TemporaryDirectory(prefix="t2ipal-train-") as notes:
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"work": work, "counter": counter, "signs": signs},
            scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
            run_config=RunConfig(
                name=fingerprint(work.settings),
                storage_path=notes,
                failure_config=FailureConfig(max_failures=max_failures),
            ),
        )
        try:
            with _bar(work, counter), watch.over():
                _fit(trainer)
        except TrainingFailedError as error:
            raise RuntimeError(f"Training failed: {_reason(error)}") from error


def _fit(trainer: TorchTrainer) -> None:
    """Not in the main thread, where Ray would take Ctrl-C for itself and end the process late."""
    ended: Future[Any] = Future()

    def fit() -> None:
        try:
            ended.set_result(trainer.fit())
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=fit, daemon=True).start()
    ended.result()


def _reason(error: TrainingFailedError) -> str:
    """What a worker raised, in one line where Ray tells it; the tracebacks are in the error."""
    failures = map(str, getattr(error, "worker_failures", {}).values())
    lines = [failure.strip().splitlines()[-1] for failure in failures if failure.strip()]
    return lines[0] if lines else str(error.__cause__ or error)


@ray.remote(num_cpus=0)
class _Counter:
    """Counts epochs of all runs where they are trained, to be shown where they were asked for."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> None:
        """One epoch more."""
        self.count += 1

    def read(self) -> int:
        """Epochs so far; those that a lost worker made again count twice."""
        return self.count


@contextlib.contextmanager
def _bar(work: TrainingWork, counter: Any) -> Iterator[None]:
    """A bar inside the `with` block, which follows the counter."""
    ended = threading.Event()
    with epoch_bar(work) as bar:

        def follow() -> None:
            while not ended.wait(BAR_PAUSE_S):
                bar.update(min(ray.get(counter.read.remote()), bar.total) - bar.n)

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
    context, counter = ray.train.get_context(), config["counter"]
    rank = context.get_world_rank()
    with signs_of_life(config["signs"]):
        train_work(
            config["work"],
            rank=rank,
            world_size=context.get_world_size(),
            on_epoch=lambda *_: counter.add.remote() if rank == 0 else None,
        )
