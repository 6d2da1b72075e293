"""What a search leaves in a store, while it runs and afterwards: one object for each population.

A trial is one setting, trained with one seed or several. A population is trained at once and writes
its trials into one object, again and again until all have ended: whoever looks at the store sees
the running ones, and a search that was killed goes on with those that have not ended.

    settings.json              what is searched, with every default
    progress.json              the search's sign of life, and how many trials there are to be
    populations/00000.json     the trials of one population
    trials.json, trials.csv    the table of all, when the search ends
    best.json                  the best trial
"""

import csv
import dataclasses
import io
import math
import os
import socket
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from t2ipal.config import differences, require, to_dict
from t2ipal.search.space import SearchConfig
from t2ipal.store import Store, damaged, join_key, json_bytes, read_json

SETTINGS, PROGRESS, TABLE, BEST = "settings.json", "progress.json", "trials.json", "best.json"
POPULATIONS = "populations"
"""Names within a search's folder."""
FOLDER = "search"
"""Of a run's search, and the beginning of the names of its others: `search-wide`, ..."""
OLD_FOLDER = "tune"
"""Where versions before put theirs: a table alone."""
VERSION = 2
"""Of a folder's form; those before had no number."""
UNCOMPARED = ("run", "endpoint_url", "changes")
"""Of the settings: where the run lies, and changes, which the recipe has too."""
QUIET_S = 60.0
"""Without a sign of life, after which a search counts as interrupted."""
ENDED = ("ok", "stopped", "failed")
"""States that a trial does not leave."""


@dataclass(frozen=True)
class Trial:
    """One setting, trained with one seed or several, and what it has reached."""

    number: int
    """From 0, in the order in which settings were drawn."""
    values: dict[str, Any]
    """Dotted names and the values tried."""
    status: str
    """"running", "ok", "stopped" (early, by the scheduler), "failed", or "unfinished": its process
    was lost, or time or memory were too short, and the same command runs it again."""
    reason: str = ""
    """Why it failed, was stopped or is unfinished."""
    validation_mAP: float | None = None
    """Percent, at the last epoch that was scored; mean over its seeds."""
    spread: float | None = None
    """Sample standard deviation over its seeds; None for one seed."""
    loss: float | None = None
    """Of the last epoch, mean over its seeds."""
    images: int | None = None
    """Synthetic images that it may draw from."""
    seconds: float | None = None
    """Its share of its population's time."""
    scores: tuple[tuple[int, float], ...] = ()
    """(epochs done, validation_mAP) each time that it was scored."""
    losses: tuple[float | None, ...] = ()
    """Of each epoch."""
    started_s: float | None = None
    """Since 1970."""
    ended_s: float | None = None
    """Since 1970; None while it runs."""

    @property
    def has_ended(self) -> bool:
        """Whether it does not run again."""
        return self.status in ENDED


def metric_curve(search: SearchConfig, trial: Trial) -> dict[int, float]:
    """The search's metric by the epochs after which the trial was scored."""
    if search.metric == "validation_mAP":
        return dict(trial.scores)
    losses = {epochs: trial.losses[epochs - 1] for epochs, _ in trial.scores}
    return {epochs: loss for epochs, loss in losses.items() if loss is not None}


@dataclass(frozen=True)
class Progress:
    """The search's sign of life, written every few seconds while it runs."""

    status: str
    """"running"; "done"; or "ended", where it was stopped or its budget was spent."""
    num_trials: int
    """That there are to be."""
    started_s: float
    """Since 1970: of the process that wrote this."""
    updated_s: float
    note: str = ""
    """Why it ended, in a sentence."""
    host: str = ""
    """Machine of that process."""
    pid: int = 0
    """Its number there."""


def search_status(progress: Progress | None, now_s: float | None = None) -> str:
    """ "waiting" (nothing yet), "running", "interrupted" (no sign of life), "ended", "done"."""
    if progress is None:
        return "waiting"
    quiet = (time.time() if now_s is None else now_s) - progress.updated_s > QUIET_S
    return "interrupted" if progress.status == "running" and quiet else progress.status


@dataclass
class SearchFolder:
    """A search in a store; objects of populations are read again only where they changed."""

    store: Store
    folder: str
    _seen: dict[str, tuple[str, list[Trial]]] = field(default_factory=dict, repr=False)

    def key(self, name: str) -> str:
        """Of one of its objects."""
        return join_key(self.folder, name)

    @property
    def place(self) -> str:
        """To read."""
        return f"{self.store.uri}/{self.folder}".rstrip("/")

    def settings(self) -> dict[str, Any] | None:
        """What is searched; None where nothing is.

        Raises:
            ValueError: it is damaged.
        """
        return self._object(SETTINGS)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Writes what is searched, unless what is there is of another search.

        Raises:
            ValueError: it is; every difference is named. Or it is of another version.
        """
        settings, there = {"version": VERSION, **settings}, self.settings()
        if there is not None and self.holds_trials():
            version = there.get("version", 1)
            require(
                version == VERSION,
                f"{self.place} holds a search of another version of t2ipal (form {version}, this "
                f"one writes form {VERSION}). It is kept, and the report shows it. Use another "
                "output folder.",
            )
            changed = differences(_compared(settings), _compared(there))
            require(
                not changed,
                f"{self.place} holds another search ({'; '.join(changed)}). Use another output "
                "folder or remove it.",
            )
        if there != settings:
            self.store.write(self.key(SETTINGS), json_bytes(settings))

    def require_alone(self) -> None:
        """Raises RuntimeError where another process searches here now."""
        progress = self.progress()
        if progress is None or search_status(progress) != "running":
            return
        here = progress.host == socket.gethostname()
        if here and (progress.pid == os.getpid() or not _lives(progress.pid)):
            return
        what = "End it first" if here else f"If it was killed, wait {QUIET_S:.0f} seconds"
        raise RuntimeError(
            f"Another process searches in {self.place} (process {progress.pid} of "
            f"{progress.host or 'another machine'}). {what}, or use another output folder."
        )

    def holds_trials(self) -> bool:
        """Whether anything was tried."""
        populations = self.store.list(self.key(f"{POPULATIONS}/"))
        return bool(populations) or self.store.exists(self.key(TABLE))

    def progress(self) -> Progress | None:
        """Its last sign of life.

        Raises:
            ValueError: it is damaged.
        """
        values = self._object(PROGRESS)
        try:
            return None if values is None else Progress(**values)
        except TypeError as error:
            raise ValueError(damaged(self.store, self.key(PROGRESS), "tune")) from error

    def _object(self, name: str) -> dict[str, Any] | None:
        try:
            return read_json(self.store, self.key(name), "tune")
        except FileNotFoundError:
            return None

    def keep_progress(self, progress: Progress) -> None:
        """Writes a sign of life."""
        self.store.write(self.key(PROGRESS), json_bytes(asdict(progress)))

    def status(self, now_s: float | None = None) -> str:
        """As `search_status`, of its last sign of life."""
        return search_status(self.progress(), now_s)

    def num_populations(self) -> int:
        """Those that were begun: the number of the next one."""
        keys = self.store.list(self.key(f"{POPULATIONS}/"))
        return 1 + max((int(key.rpartition("/")[2].partition(".")[0]) for key in keys), default=-1)

    def begin_population(self, settings: Mapping[int, Mapping[str, Any]]) -> int:
        """Takes the next number for a population; no other search in this folder gets the same.

        Args:
            settings: the values of its trials by their numbers.
        """
        now, population = time.time(), self.num_populations()
        rows = [Trial(n, dict(values), "running", started_s=now) for n, values in settings.items()]
        while not self.store.write_if_absent(self._population_key(population), _rows(rows)):
            population += 1
        return population

    def population(self, population: int) -> list[Trial]:
        """The trials of one population; none where it was not begun.

        Raises:
            ValueError: what is kept of it is damaged.
        """
        try:
            return self._read(self._population_key(population))
        except FileNotFoundError:
            return []

    def keep(self, population: int, trials: Iterable[Trial]) -> None:
        """Writes the trials of a population as they are now."""
        self.store.write(self._population_key(population), _rows(trials))

    def _population_key(self, population: int) -> str:
        return self.key(f"{POPULATIONS}/{population:05d}.json")

    def trials(self) -> list[Trial]:
        """All that were begun, by their numbers; of one begun twice the state that goes furthest.

        Raises:
            ValueError: what is kept of a population is damaged.
        """
        found: dict[int, Trial] = {}
        for key, entry in self.store.entries(self.key(f"{POPULATIONS}/")).items():
            seen = self._seen.get(key)
            if seen is None or seen[0] != entry.version:
                seen = self._seen[key] = entry.version, self._read(key)
            for trial in seen[1]:
                known = found.get(trial.number)
                if known is None or trial.has_ended >= known.has_ended:
                    found[trial.number] = trial
        return [found[number] for number in sorted(found)]

    def _read(self, key: str) -> list[Trial]:
        try:
            return [stored_trial(row) for row in read_json(self.store, key, "tune")["trials"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(damaged(self.store, key, "tune")) from error

    def write_table(self, search: SearchConfig, trials: Sequence[Trial]) -> None:
        """Writes `trials.json`, `trials.csv` and, where one came to its end, `best.json`."""
        content = {"search": to_dict(search), "trials": [_plain(trial) for trial in trials]}
        self.store.write(self.key(TABLE), json_bytes(content))
        self.store.write(self.key("trials.csv"), csv_table(search, trials).encode())
        winner = best(search, trials)
        if winner is not None:
            self.store.write(self.key(BEST), json_bytes(_plain(winner)))


def csv_table(search: SearchConfig, trials: Sequence[Trial]) -> str:
    """The trials for a spreadsheet, one a row; curves are in trials.json."""
    text = io.StringIO()
    names = [dimension.path for dimension in search.dimensions]
    curves = ("values", "scores", "losses")
    outcome = [field.name for field in fields(Trial) if field.name not in curves]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([outcome[0], *names, *outcome[1:]])
    for trial in trials:
        number, *rest = (getattr(trial, name) for name in outcome)
        writer.writerow([number, *(trial.values.get(name) for name in names), *rest])
    return text.getvalue()


def completed(trials: Iterable[Trial], *metrics: str) -> list[Trial]:
    """Those that came to their end and have these numbers."""
    ok = (trial for trial in trials if trial.status == "ok")
    return [trial for trial in ok if all(getattr(trial, name) is not None for name in metrics)]


def ranked(search: SearchConfig, trials: Iterable[Trial]) -> list[Trial]:
    """The trials that came to their end, the best first; equals in their order."""
    sign = -1 if search.mode == "max" else 1
    done = completed(trials, search.metric)
    return sorted(done, key=lambda trial: sign * getattr(trial, search.metric))


def best(search: SearchConfig, trials: Iterable[Trial]) -> Trial | None:
    """The first of `ranked`; None where no trial came to its end."""
    return next(iter(ranked(search, trials)), None)


def pareto_front(search: SearchConfig, trials: Iterable[Trial]) -> list[Trial]:
    """The trials that no other one beats in every objective, from the least costly on."""
    sign = -1 if search.mode == "max" else 1

    def costs(trial: Trial) -> tuple[float, ...]:
        return (
            *(getattr(trial, name) for name in search.minimize),
            sign * getattr(trial, search.metric),
        )

    done = completed(trials, *search.minimize, search.metric)
    front: list[Trial] = []
    for trial in sorted(done, key=costs):  # whoever beats it comes before it
        mine = costs(trial)
        if not any(all(a <= b for a, b in zip(costs(other), mine)) for other in front):
            front.append(trial)
    return front


def search_folder(run: Store, output: str | None, endpoint_url: str | None = None) -> SearchFolder:
    """Where a search of a run goes: into the run, so that its page shows it, or elsewhere.

    Args:
        run: home of the run.
        output: a folder, in the run or not; None: the run's `search`.
        endpoint_url: of a bucket that is not on AWS.
    """
    if output is None:
        return SearchFolder(run, FOLDER)
    store = Store(output, endpoint_url)
    inside = store.uri.removeprefix(f"{run.uri}/")
    return SearchFolder(store, "") if inside == store.uri else SearchFolder(run, inside)


def is_search_name(folder: str) -> bool:
    """Whether a folder at the top of a run is taken for a search by its name."""
    return folder in (FOLDER, OLD_FOLDER) or (folder.startswith(f"{FOLDER}-") and "/" not in folder)


def find_searches(store: Store) -> list[str]:
    """Folders of a run that hold a search, those of versions before too."""
    names = filter(is_search_name, store.folders(FOLDER))
    found = [name for name in names if store.exists(join_key(name, SETTINGS))]
    old = any(store.exists(join_key(OLD_FOLDER, name)) for name in (SETTINGS, TABLE))
    return [*found, OLD_FOLDER] if old else found


def read_trials(store: Store, folder: str) -> list[Trial]:
    """The trials of a search, by this version or one before.

    Raises:
        ValueError: what is kept of one is damaged.
    """
    return SearchFolder(store, folder).trials() or read_old_table(store, folder)


def read_old_table(store: Store, folder: str = OLD_FOLDER) -> list[Trial]:
    """The trials of a search by a version before; none where there is no such table.

    Raises:
        ValueError: the table is damaged.
    """
    key = join_key(folder, TABLE)
    if not store.exists(key):
        return []
    try:
        rows = read_json(store, key, "tune")["trials"]
        return [stored_trial({"number": number, **row}) for number, row in enumerate(rows)]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(damaged(store, key, "tune")) from error


def mean_and_spread(scores: Sequence[float]) -> tuple[float, float | None]:
    """Over seeds; the sample standard deviation (n - 1), None for one seed."""
    return statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else None


def summary(trial: Trial) -> dict[str, Any]:
    """A trial in a job's last line, without its curves."""
    curves = ("scores", "losses", "started_s", "ended_s")
    return {name: value for name, value in _plain(trial).items() if name not in curves}


def stored_trial(stored: Mapping[str, Any]) -> Trial:
    """A stored trial; raises TypeError or ValueError where it is none."""
    trial = Trial(**stored)
    require(isinstance(trial.values, dict), "values must have names.")
    score = trial.validation_mAP
    require(isinstance(score, int | float | None), "validation_mAP must be a number.")
    scores = tuple((int(epochs), float(score)) for epochs, score in trial.scores)
    return dataclasses.replace(trial, scores=scores, losses=tuple(trial.losses))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same where a search goes on: not where, nor what the recipe says too."""
    backbone = {**settings.get("backbone", {}), "device": None}
    return {**settings, "backbone": backbone, **dict.fromkeys(UNCOMPARED)}


def _rows(trials: Iterable[Trial]) -> bytes:
    return json_bytes({"trials": [_plain(trial) for trial in trials]})


def finite(value: Any) -> Any:
    """The value; None in place of a float that is no number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(trial: Trial) -> dict[str, Any]:
    """For JSON, which has no infinity and nothing that is no number."""
    values = {name: finite(value) for name, value in asdict(trial).items()}
    return {**values, "losses": [finite(loss) for loss in trial.losses]}
