"""A search as it runs: populations whose trials are kept at once, and a look at all of them.

Owns when something is written; `t2ipal.engine.search` has the same populations trained by workers.
"""

import contextlib
import logging
import math
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from tqdm import tqdm

from t2ipal.methods.contract import FrozenBackbone
from t2ipal.search.halving import Halving
from t2ipal.search.population import SearchData, train_population
from t2ipal.search.results import Progress, SearchFolder, Trial, best, pareto_front, summary
from t2ipal.search.setting import Setting
from t2ipal.search.space import SearchConfig
from t2ipal.search.suggestions import Suggestions, population_size

KEEP_S = 2.0
"""Between two writes of a population where no trial ended."""
LOOK_S = 2.0
"""Between two looks at all trials."""
logger = logging.getLogger(__name__)


class Keeper:
    """Writes a population's trials when one runs no more, and now and then before.

    Args:
        folder: of the search.
        population: its number.
        settings: the values of its trials. Those that have ended already, where the population is
            begun anew, stay as they are.
    """

    def __init__(
        self, folder: SearchFolder, population: int, settings: Mapping[int, Mapping[str, Any]]
    ) -> None:
        self.folder, self.population = folder, population
        self._before = [trial for trial in folder.population(population) if trial.has_ended]
        ended = {trial.number for trial in self._before}
        self.settings = {n: values for n, values in settings.items() if n not in ended}
        self._settled, self._written_s = -1, 0.0

    def __call__(self, trials: Sequence[Trial]) -> None:
        """Gets them as they are now."""
        settled = sum(trial.status != "running" for trial in trials)
        if settled != self._settled or time.monotonic() - self._written_s > KEEP_S:
            self.folder.keep(self.population, [*self._before, *trials])
            self._settled, self._written_s = settled, time.monotonic()


def in_process(
    search: SearchConfig,
    start: Setting,
    data: SearchData,
    load_backbone: Callable[[], FrozenBackbone],
    folder: SearchFolder,
    deadline_s: float = math.inf,
    *,
    population: int | None = None,
) -> None:
    """Trains the trials that have not ended, one population after the other, in this process.

    Args:
        search: the checked space.
        start: everything that the space does not vary.
        data: what is learned from, and what is scored on.
        load_backbone: called once.
        folder: where trials are kept.
        deadline_s: since 1970; no population begins after it, and who runs is left unfinished.
        population: trials that are trained at once; None: as many as are good for this search.
    """
    known = folder.trials()
    suggestions, halving = Suggestions(search, known), Halving(search, known)
    size = population_size(search, suggestions.num_left, 1, population)
    backbone = load_backbone() if suggestions.num_left else None
    while time.time() < deadline_s and (settings := suggestions.next(size)):
        assert backbone is not None
        keep = Keeper(folder, folder.begin_population(settings), settings)
        suggestions.tell(
            train_population(
                settings, start, search, data, backbone, halving.stopped, keep, deadline_s
            )
        )


class Monitor:
    """Looks at all trials every few seconds, and tells a person; a context manager.

    On stderr: a bar with the best so far, how many trials run, were stopped or failed, and the time
    left; and a line for each new best. In the store: the search's sign of life.

    Args:
        search: the space and how it is searched.
        folder: where trials are kept.
        quiet: no bar, for logs.
        update: also called with all trials at each look, and whether it is the last one.
    """

    def __init__(
        self,
        search: SearchConfig,
        folder: SearchFolder,
        quiet: bool = False,
        update: Callable[[Sequence[Trial], bool], None] = lambda trials, final: None,
    ) -> None:
        self.search, self.folder, self.quiet, self.update = search, folder, quiet, update
        self.started_s = time.time()
        self.trials: list[Trial] = []
        self._best: int | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="search-monitor", daemon=True)

    def __enter__(self) -> "Monitor":
        self.trials = self.folder.trials()
        self.num_before = self.num_ended
        winner = best(self.search, self.trials)
        self._best = None if winner is None else winner.number
        self._bar = tqdm(
            total=self.search.num_trials, initial=self.num_before, desc="search", unit="trial",
            disable=self.quiet, dynamic_ncols=True, smoothing=0.0,
        )  # fmt: skip
        self._keep("running")
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._over.set()
        self._thread.join()
        with self._going_on():
            self.look()
        self._bar.close()
        whole = self.num_ended == self.search.num_trials
        note = "" if error is None else f"{kind.__name__}: {error}".rstrip(": ")
        # Where the store fails now, an error of the search is the one to be told.
        with nullcontext() if error is None else self._going_on():
            self._keep("done" if whole else "ended", note)
            if self.trials:
                self.folder.write_table(self.search, self.trials)
        self.update(self.trials, True)

    def outcome(self, deadline_s: float = math.inf) -> dict[str, Any]:
        """What became of the search, for a job's last line.

        Args:
            deadline_s: since 1970, after which it is no fault that no trial came to its end.

        Raises:
            RuntimeError: none did, for another reason.
        """
        counts = Counter(trial.status for trial in self.trials)
        winner = best(self.search, self.trials)
        if winner is None and counts["unfinished"] and time.time() < deadline_s:
            (_, reason), *_ = reasons(self.trials)
            raise RuntimeError(f"No trial of {self.folder.place} came to its end: {reason}")
        front = pareto_front(self.search, self.trials) if self.search.minimize else None
        return {
            "output": self.folder.place,
            "num_trials": len(self.trials),
            "num_resumed": self.num_before,
            "num_failed": counts["failed"],
            "num_stopped": counts["stopped"],
            "num_unfinished": counts["unfinished"] + counts["running"],
            "best": None if winner is None else summary(winner),
            "pareto_front": None if front is None else [summary(trial) for trial in front],
        }

    @property
    def num_ended(self) -> int:
        """Trials that do not run again, as of the last look."""
        return sum(trial.has_ended for trial in self.trials)

    def look(self) -> None:
        """Looks now."""
        self.trials = self.folder.trials()
        counts = Counter(trial.status for trial in self.trials)
        winner = best(self.search, self.trials)
        if winner is not None and winner.number != self._best:
            self._best = winner.number
            tqdm.write(describe(self.search, winner), file=sys.stderr)
        self._bar.n = self.num_ended
        shown: dict[str, Any] = {}
        if winner is not None:
            shown["best"] = f"{getattr(winner, self.search.metric):.2f}"
        told = ("running", "stopped", "failed", "unfinished")
        shown |= {name: counts[name] for name in told if counts[name]}
        if done := self.num_ended - self.num_before:
            shown["per_hour"] = f"{3600 * done / (time.time() - self.started_s):,.0f}"
        self._bar.set_postfix(shown, refresh=True)

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            with self._going_on():
                self.look()
                self._keep("running")
                self.update(self.trials, False)

    @contextlib.contextmanager
    def _going_on(self) -> Iterator[None]:
        """A look that fails ends no search; it says so, and the next one may not fail."""
        try:
            yield
        except (OSError, ValueError) as error:
            logger.warning("Could not look at the search: %s", error)

    def _keep(self, status: str, note: str = "") -> None:
        now = time.time()
        here = socket.gethostname(), os.getpid()
        self.folder.keep_progress(
            Progress(status, self.search.num_trials, self.started_s, now, note, *here)
        )


def describe(search: SearchConfig, trial: Trial) -> str:
    """A new best in a line."""
    values = ", ".join(f"{name.rpartition('.')[2]} {_short(v)}" for name, v in trial.values.items())
    spread = "" if trial.spread is None else f" ± {trial.spread:.2f}"
    reached = f"{search.metric} {getattr(trial, search.metric):.2f}{spread}"
    return f"best so far: {reached} (trial {trial.number}: {values})"


def reasons(trials: Sequence[Trial]) -> Mapping[tuple[str, str], int]:
    """How many trials failed or are unfinished, by status and reason, the most frequent first."""
    without = [trial for trial in trials if trial.status in ("failed", "unfinished")]
    return dict(Counter((trial.status, trial.reason) for trial in without).most_common())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
