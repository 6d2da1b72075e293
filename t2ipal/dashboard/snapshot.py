"""What the page is told of a run's searches: everything once, and then what changed.

Every reply has a version; whoever sends back the last one that it saw gets what is newer. Columns
are joined from texts that are made once for each state of a trial: 10,000 trials cost a joining.
"""

import json
import math
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from t2ipal.config import from_dict, require, to_dict
from t2ipal.dashboard.importance import Importance
from t2ipal.dashboard.overview import Overview
from t2ipal.features.config import BackboneConfig
from t2ipal.search.results import (
    OLD_FOLDER,
    Progress,
    SearchFolder,
    Trial,
    best,
    find_searches,
    pareto_front,
    read_old_table,
    search_status,
)
from t2ipal.search.space import SearchConfig
from t2ipal.store import Store

REFRESH_S = 1.0
"""A store is looked at no more often, however many browsers ask."""
SEARCHES_S = 10.0
"""The same, for the list of searches."""
OVERVIEW_S = 4.0
"""The same, for the run as a whole."""
NUMBERS = ("validation_mAP", "spread", "loss", "images", "seconds")
TIMES = ("started_s", "ended_s")
TEXTS = ("status", "reason")


@dataclass(frozen=True)
class _Row:
    """A state of a trial, written as JSON."""

    trial: Trial
    version: int
    cells: tuple[str, ...]
    """In the order of the columns: number, texts, numbers, times, then each dimension."""
    scores: tuple[str, str, str]
    """Epochs, and the scores at them; the number of both."""
    losses: tuple[str, str]
    """Losses, and their number."""


@dataclass
class SearchSnapshot:
    """What was seen of one search, and when it changed."""

    store: Store
    folder: str
    version: int = 0
    began: int = 0
    """Version at which all that was known before went out of date."""
    origin_s: float = 0.0
    """Times are told since then: it is near to all of them, so that they are short."""
    error: str | None = None
    """Why the store could not be read the last time."""
    search: SearchConfig | None = None
    """None where nothing can be told."""
    settings: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    rows: dict[int, _Row] = field(default_factory=dict)
    importance: Importance = field(default_factory=Importance)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _looked_s: float = -math.inf
    _reader: SearchFolder | None = None

    def refresh(self, wait: bool = False) -> None:
        """Looks at the store, unless that was done a moment ago; keeps what there was on an error.

        Args:
            wait: whether to wait for what is computed from it.
        """
        with self._lock:
            if time.monotonic() - self._looked_s < REFRESH_S:
                return
            try:
                self._look()
                self.error = None
            except (ValueError, OSError, RuntimeError) as error:
                self.error = " ".join(str(error).split())
            finally:
                self._looked_s = time.monotonic()
            if self.search is not None:
                self.importance.update(self.search, [r.trial for r in self.rows.values()], wait)

    def _look(self) -> None:
        reader = self._reader = self._reader or SearchFolder(self.store, self.folder)
        settings = reader.settings()
        if settings is None:
            self.search, self.head = None, {}
            return
        if settings != self.settings or self.search is None:
            self.search = from_dict(SearchConfig, settings.get("search", {}))
            self.settings = settings
            self._forget()
        is_old = "version" not in settings
        trials = read_old_table(self.store, self.folder) if is_old else reader.trials()
        self._take(trials)
        progress = None if is_old else reader.progress()
        status = "done" if is_old else search_status(progress)
        self.head = describe(self.search, settings, trials, progress, status)

    def _take(self, trials: Sequence[Trial]) -> None:
        """Notes which trials are new or changed."""
        assert self.search is not None
        if not self.rows:
            self.origin_s = math.floor(min((t.started_s for t in trials if t.started_s), default=0))
        paths = [dimension.path for dimension in self.search.dimensions]
        changed = [t for t in trials if not self._knows(t)]
        gone = self.rows.keys() - {trial.number for trial in trials}
        if gone:  # a search that began anew in the same folder
            self._forget()
            changed = list(trials)
        if not changed:
            return
        self.version += 1
        for trial in changed:
            self.rows[trial.number] = _row(trial, self.version, paths, self.origin_s)

    def _forget(self) -> None:
        self.rows = {}
        self.version = self.began = self.version + 1

    def _knows(self, trial: Trial) -> bool:
        row = self.rows.get(trial.number)
        return row is not None and (row.trial is trial or row.trial == trial)

    def _first_of(self, since: int) -> int:
        """A version, or 0 where all that is known of it is out of date."""
        return min(since, self.version) if since >= self.began else 0

    def _newer(self, since: int) -> list[_Row]:
        """Rows that changed after a version."""
        return [row for row in self.rows.values() if row.version > since]

    def state(self, since: int) -> str:
        """JSON of the search and of the trials that changed; the curves are asked for apart."""
        with self._lock:
            return self._state(self._first_of(since))

    def curves(self, since: int) -> str:
        """JSON of the scores and losses of the trials that changed."""
        with self._lock:
            return self._curves(self._first_of(since))

    def _state(self, since: int) -> str:
        rows = self._newer(since)
        paths = [d.path for d in self.search.dimensions] if self.search else []
        names = ["number", *TEXTS, *NUMBERS, *TIMES]
        cells = list(zip(*(row.cells for row in rows))) or [()] * (len(names) + len(paths))
        columns = [f'"{name}":[{",".join(column)}]' for name, column in zip(names, cells)]
        values = (f"[{','.join(column)}]" for column in cells[len(names) :])
        columns.append(f'"values":[{",".join(values)}]')
        head = {
            "version": self.version,
            "since": since,
            "error": self.error,
            "origin_s": self.origin_s,
            "head": self.head,
            "importance": self.importance.told(),
        }
        return f'{json.dumps(head)[:-1]},"columns":{{{",".join(columns)}}}}}'

    def _curves(self, since: int) -> str:
        rows = [row for row in self._newer(since) if row.scores[0] or row.losses[0]]
        columns = {
            "number": (row.cells[0] for row in rows),
            "epochs": (row.scores[0] for row in rows if row.scores[0]),
            "scores": (row.scores[1] for row in rows if row.scores[0]),
            "num_scores": (row.scores[2] for row in rows),
            "losses": (row.losses[0] for row in rows if row.losses[0]),
            "num_losses": (row.losses[1] for row in rows),
        }
        body = ",".join(f'"{name}":[{",".join(cells)}]' for name, cells in columns.items())
        return f'{{"version":{self.version},{body}}}'


def describe(
    search: SearchConfig,
    settings: Mapping[str, Any],
    trials: Sequence[Trial],
    progress: Progress | None,
    status: str,
) -> dict[str, Any]:
    """What holds for a search as a whole, as the page is told it."""
    winner = best(search, trials)
    rate = trials_per_hour(trials, progress)
    num_trials = progress.num_trials if progress else len(trials)
    left = num_trials - sum(trial.has_ended for trial in trials)
    seconds_left = left / rate * 3600 if rate and status == "running" else None
    return {
        "status": status,
        "note": progress.note if progress else "",
        "num_trials": max(num_trials, len(trials)),
        "per_hour": _short(rate),
        "seconds_left": _short(seconds_left),
        "updated_s": progress.updated_s if progress else None,
        "metric": search.metric,
        "mode": search.mode,
        "minimize": search.minimize,
        "num_seeds": search.num_seeds,
        "searcher": search.searcher,
        "scheduler": search.scheduler,
        "method": settings.get("method", "t2ipal"),
        "schedule": settings.get("schedule"),
        "changes": settings.get("changes", {}),
        "run": settings.get("run"),
        "options": _options(settings),
        "dimensions": [
            {"path": d.path, "kind": d.kind, "values": [_plain(value) for value in d.values]}
            for d in search.dimensions
        ],
        "best": None if winner is None else winner.number,
        "front": [t.number for t in pareto_front(search, trials)] if search.minimize else [],
    }


def _options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a job that finds the same run and features, where they are not the defaults."""
    usual = to_dict(BackboneConfig())
    backbone = {**usual, **(settings.get("backbone") or {}), "device": usual["device"]}
    given = {name: value for name, value in backbone.items() if value != usual.get(name)}
    endpoint_url = settings.get("endpoint_url")
    return given if endpoint_url is None else {**given, "endpoint_url": endpoint_url}


def trials_per_hour(trials: Iterable[Trial], progress: Progress | None) -> float | None:
    """Trials that ended since the search was started the last time; None where none did."""
    if progress is None:
        return None
    start_s = progress.started_s
    ends = [t.ended_s for t in trials if t.ended_s is not None and t.ended_s >= start_s]
    passed_s = max([progress.updated_s, *ends]) - start_s
    return len(ends) / passed_s * 3600 if ends and passed_s > 0 else None


@dataclass
class Snapshots:
    """The searches of a run, each looked at when it is asked for."""

    store: Store
    only: str | None = None
    """The one search that is told of; None: all of the run."""
    price_per_gpu_hour: float | None = None
    """For the cost of synthesis; None: none is told."""
    gpus_per_worker: float = 1.0
    instance: str = field(default_factory=lambda: secrets.token_hex(6))
    """Versions are of this process: another one counts from 0 again."""
    _searches: dict[str, SearchSnapshot] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _names: list[str] = field(default_factory=list)
    _listed_s: float = -math.inf
    _run: Overview = field(init=False)
    _overview: tuple[float, str] = (-math.inf, "{}")
    _overview_lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._run = Overview(self.store, self.price_per_gpu_hour, self.gpus_per_worker)

    def names(self) -> list[str]:
        """Folders of the run that hold a search; the run's own first."""
        with self._lock:
            if time.monotonic() - self._listed_s > SEARCHES_S:
                found = find_searches(self.store) if self.only is None else [self.only]
                self._names = sorted(found, key=lambda name: (name == OLD_FOLDER, name))
                # A run without a search may get its first one at any moment.
                self._listed_s = time.monotonic() if found else -math.inf
            return self._names

    def search(self, name: str) -> SearchSnapshot:
        """What was seen of one search."""
        with self._lock:
            return self._searches.setdefault(name, SearchSnapshot(self.store, name))

    def state(self, query: Mapping[str, str]) -> str:
        """JSON: the searches of the run, and of the one asked for what is newer than `since`.

        Raises:
            ValueError: the query is none of the page's own.
        """
        since = self._since(query)
        try:
            names, error = self.names(), None
        except (ValueError, OSError, RuntimeError) as problem:
            names, error = self._names, " ".join(str(problem).split())
        wanted = query.get("search") or (names[0] if names else "")
        own = {"instance": self.instance, "run": self.store.uri, "searches": names}
        if wanted not in names:
            return json.dumps({**own, "search": None, "error": error})
        snapshot = self.search(wanted)
        snapshot.refresh()
        return f"{json.dumps({**own, 'search': wanted})[:-1]},{snapshot.state(since)[1:]}"

    def curves(self, query: Mapping[str, str]) -> str:
        """JSON: the curves of a search that are newer than `since`.

        Raises:
            ValueError: the query is none of the page's own.
        """
        since = self._since(query)
        require(query.get("search", "") in self.names(), "There is no such search")
        snapshot = self.search(query["search"])
        snapshot.refresh()
        return f'{{"instance":"{self.instance}",{snapshot.curves(since)[1:]}'

    def _since(self, query: Mapping[str, str]) -> int:
        text = query.get("since", "0")
        require(text.isascii() and text.isdigit() and len(text) < 16, "since must be a number")
        return int(text) if query.get("instance", self.instance) == self.instance else 0

    def overview(self) -> str:
        """JSON of the run as a whole."""
        with self._overview_lock:
            looked_s, text = self._overview
            if time.monotonic() - looked_s > OVERVIEW_S:
                text = json.dumps(self._look_at_run())
                self._overview = time.monotonic(), text
            return text

    def _look_at_run(self) -> dict[str, Any]:
        try:
            return self._run.told()
        except (ValueError, OSError, RuntimeError) as error:
            return {"error": " ".join(str(error).split())}

    def everything(self, name: str) -> dict[str, Any]:
        """All of one search and of its run, for a page that asks nobody.

        Raises:
            ValueError: the folder holds no search, or what it holds is damaged.
        """
        snapshot = self.search(name)
        snapshot.refresh(wait=True)
        require(snapshot.error is None, str(snapshot.error))
        require(snapshot.search is not None, f"No search in {self.store.uri}/{name}.")
        own = {"instance": self.instance, "run": self.store.uri, "searches": [name]}
        return {
            "state": {**own, "search": name, **json.loads(snapshot.state(0))},
            "curves": {"instance": self.instance, **json.loads(snapshot.curves(0))},
            "overview": json.loads(self.overview()),
            "written_s": time.time(),
        }


def _row(trial: Trial, version: int, paths: Sequence[str], origin_s: float) -> _Row:
    cells = (
        str(trial.number),
        *(json.dumps(getattr(trial, name)) for name in TEXTS),
        *(_number(getattr(trial, name)) for name in NUMBERS),
        *(_since_origin(getattr(trial, name), origin_s) for name in TIMES),
        *(json.dumps(_plain(trial.values.get(path))) for path in paths),
    )
    epochs = ",".join(str(epoch) for epoch, _ in trial.scores)
    scores = ",".join(_number(score) for _, score in trial.scores)
    losses = ",".join(map(_number, trial.losses))
    counts = str(len(trial.scores)), str(len(trial.losses))
    return _Row(trial, version, cells, (epochs, scores, counts[0]), (losses, counts[1]))


def _number(value: float | None) -> str:
    """To five digits, which is more than a chart or a table shows."""
    if value is None or not math.isfinite(value):
        return "null"
    return str(value) if isinstance(value, int) else f"{value:.5g}"


def _since_origin(value: float | None, origin_s: float) -> str:
    return "null" if value is None else f"{value - origin_s:.1f}"


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def _plain(value: Any) -> Any:
    """What JSON can hold; the rest as text."""
    match value:
        case float():
            return value if math.isfinite(value) else str(value)
        case list() | tuple():
            return [_plain(each) for each in value]
        case _:
            return value if isinstance(value, str | int | None) else str(value)
