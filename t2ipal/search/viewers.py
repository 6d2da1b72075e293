"""What a search leaves for the pages of others: TensorBoard, optuna-dashboard and MLflow.

All of it is made from the trials, for people to look at: where a viewer fails, the search says so
once and goes on.
"""

import contextlib
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from t2ipal.search.mlflow_runs import MlflowRuns, require_mlflow
from t2ipal.search.optuna_journal import OptunaJournal
from t2ipal.search.results import SearchFolder, Trial, finite
from t2ipal.search.space import SearchConfig
from t2ipal.search.tensorboard import EVENTS, TensorBoardFolder

RETRY_S = 60.0
"""After which a viewer that failed is tried again."""
UPLOAD_S = 20.0
"""Between uploads to a bucket."""
TENSORBOARD, BEST_TRIALS, JOURNAL = "tensorboard", "tensorboard-best", "optuna.journal"
"""Names in a search's folder."""
logger = logging.getLogger(__name__)


class Viewer(Protocol):
    """One way to look at a search from outside."""

    def update(self, trials: Sequence[Trial], final: bool) -> None:
        """Tells of what is new in the trials; `final` at the end of the search."""


class Viewers:
    """All viewers of a search. What an earlier process left in the folder is gone on with."""

    def __init__(
        self,
        search: SearchConfig,
        folder: Path,
        *,
        mlflow: str | None = None,
        name: str = "search",
        upload_to: SearchFolder | None = None,
    ):
        """Writes nothing yet.

        Args:
            search: that the trials are of.
            folder: of this machine, for files.
            mlflow: address of an MLflow server or database; None: none.
            name: of the search, as viewers show it; on a server of MLflow no other may have it.
            upload_to: where the files are copied to, for a search in a bucket.

        Raises:
            ValueError: the address can be none, or MLflow is not installed.
        """
        self._seen: dict[int, tuple[Trial, Trial]] = {}
        best_trials = folder / BEST_TRIALS
        makers: dict[str, Callable[[], Viewer]] = {
            "TensorBoard": lambda: TensorBoardFolder(search, folder / TENSORBOARD, best_trials),
            "optuna-dashboard": lambda: OptunaJournal(search, folder / JOURNAL, name),
        }
        if mlflow is not None:
            require_mlflow(mlflow)
            makers["MLflow"] = lambda: MlflowRuns(search, mlflow, name)
        if upload_to is not None:
            makers["viewers in the bucket"] = lambda: Upload(folder, upload_to)
        self._guards = [_Guard(what, make) for what, make in makers.items()]

    def update(self, trials: Sequence[Trial], final: bool = False) -> None:
        """Tells of what is new; for a call every few seconds.

        Args:
            trials: all that were begun.
            final: at the end of the search, when nothing may be left for later.
        """
        shown = [self._finite(trial) for trial in trials]
        for guard in self._guards:
            guard.update(shown, final)

    def _finite(self, trial: Trial) -> Trial:
        """The trial without what is no number; the same object as long as it is the same trial."""
        seen = self._seen.get(trial.number)
        if seen is None or (seen[0] is not trial and seen[0] != trial):
            seen = self._seen[trial.number] = trial, _finite(trial)
        return seen[1]


def _finite(trial: Trial) -> Trial:
    """Without what no page of a browser takes."""
    numbers = {name: finite(value) for name, value in vars(trial).items()}
    scores = tuple(point for point in trial.scores if math.isfinite(point[1]))
    losses = tuple(finite(loss) for loss in trial.losses)
    return Trial(**{**numbers, "scores": scores, "losses": losses})


@contextlib.contextmanager
def search_viewers(
    search: SearchConfig, folder: SearchFolder, mlflow: str | None = None
) -> Iterator[Viewers]:
    """Viewers of a search, with their files in its own folder; a bucket gets copies of them.

    Args:
        search: that the trials are of.
        folder: where trials are kept.
        mlflow: address of an MLflow server or database; None: none.
    """
    name = folder.place.rpartition("://")[2].strip("/").replace("/", " ")
    place = folder.store.local_path(folder.folder)
    if place is not None:
        yield Viewers(search, place, mlflow=mlflow, name=name)
        return
    with tempfile.TemporaryDirectory(prefix="t2ipal-viewers-") as files:
        yield Viewers(search, Path(files), mlflow=mlflow, name=name, upload_to=folder)


class _Guard:
    """A viewer that may fail: it is left alone for a while, and begun again from what is there."""

    def __init__(self, what: str, make: Callable[[], Viewer]):
        self._what, self._make = what, make
        self._viewer: Viewer | None = None
        self._retry_s, self._warned = 0.0, False

    def update(self, trials: Sequence[Trial], final: bool) -> None:
        """As `Viewer.update`, but raises nothing."""
        if self._viewer is None and not final and time.monotonic() < self._retry_s:
            return
        try:
            if self._viewer is None:
                self._viewer = self._make()
            self._viewer.update(trials, final)
        except Exception as error:  # whatever it is, the search does not end for it
            self._viewer, self._retry_s = None, time.monotonic() + RETRY_S
            if not self._warned:
                logger.warning(
                    "%s cannot be kept up to date: %s. The search goes on, and tries again.",
                    self._what,
                    " ".join(str(error).split()) or type(error).__name__,
                )
            self._warned = True


class Upload:
    """Copies the viewers' files to a search in a bucket: those that changed, now and then."""

    def __init__(self, folder: Path, search: SearchFolder):
        self._folder, self._search = folder, search
        self._sent: dict[str, tuple[int, int]] = {}
        """Size and time of what was sent, by name."""
        self._next_s = 0.0
        begins = [search.key(f"{name}/") for name in (TENSORBOARD, BEST_TRIALS)]
        there = (search.store.entries(begin).items() for begin in begins)
        own = len(search.key(""))
        self._there = {key[own:]: entry.size_bytes for each in there for key, entry in each}
        """Sizes of events that an earlier process sent; those of trials never change."""

    def update(self, trials: Sequence[Trial], final: bool) -> None:
        """Sends what is new."""
        if not final and time.monotonic() < self._next_s:
            return
        store, search = self._search.store, self._search
        files = [self._folder / JOURNAL, *self._folder.glob(f"{TENSORBOARD}*/**/{EVENTS}")]
        found = {path.relative_to(self._folder).as_posix(): path for path in files}
        for name, path in found.items():
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            mark = stat.st_size, stat.st_mtime_ns
            if self._sent.get(name) != mark and not self._is_there(name, stat.st_size):
                store.write(search.key(name), path.read_bytes())
            self._sent[name] = mark
        for name in {*self._sent, *self._there} - {*found}:
            if name.startswith(f"{BEST_TRIALS}/"):  # another trial is among the best now
                store.delete(search.key(name))
                self._sent.pop(name, None)
                self._there.pop(name, None)
        self._next_s = time.monotonic() + UPLOAD_S

    def _is_there(self, name: str, size_bytes: int) -> bool:
        """Whether an earlier process sent the same."""
        if self._there.get(name) != size_bytes:
            return False
        if name.count("/") > 1:  # of a trial
            return True
        return self._search.store.read(self._search.key(name)) == (self._folder / name).read_bytes()
