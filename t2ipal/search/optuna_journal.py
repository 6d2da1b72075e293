"""The search as Optuna keeps one: a journal that optuna-dashboard opens, running trials and all.

It is appended to, so that a dashboard that is open follows it, also after the search was killed and
started again. Where it is damaged, or tells of other trials, it is written anew. It is made from
the trials, for viewers alone: the search never reads it.
"""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna.logging
from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from t2ipal.search.results import Trial, metric_curve
from t2ipal.search.space import SearchConfig
from t2ipal.search.suggestions import STATES, directions, distributions, objectives

GRACE_S = 5
"""For which a lock holds up others at most; who lives needs it for milliseconds."""
ATTRIBUTES = ("reason", "validation_mAP", "spread", "loss", "images", "seconds")
"""Of a trial that does not run, shown beside its values."""


class OptunaJournal:
    """Keeps a journal in step with the trials; each update is one write."""

    def __init__(self, search: SearchConfig, path: Path, name: str):
        """Goes on with the journal that is there.

        Args:
            search: that the trials are of.
            path: of the journal.
            name: of the study in it.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of each new journal
        self._search, self._path, self._name = search, path, name
        self._distributions = distributions(_with_plain_values(search))
        self._told: dict[int, Trial] = {}
        _remove_old_lock(path)
        try:
            self._open(_whole_lines(path))
        except (ValueError, KeyError, TypeError, AssertionError):  # what Optuna says to nonsense
            self._open([])

    def update(self, trials: Sequence[Trial], final: bool) -> None:
        """Tells of what is new."""
        told = self._told.get
        changed = [t for t in trials if told(t.number) is not t and told(t.number) != t]
        if not all(self._tell(trial) for trial in changed):
            self._open([])
            if not all(self._tell(trial) for trial in trials):
                raise ValueError("The trials have one number twice.")
        self._logs.flush(self._path)

    def _open(self, logs: list[dict[str, Any]]) -> None:
        """From what a journal holds; a study of another search is left behind."""
        self._told = {}
        self._logs = _Logs(logs)
        self._storage = JournalStorage(self._logs)
        sides = directions(self._search)
        about = {
            "metric_names": [self._search.metric, *self._search.minimize],
            "directions": [side.name for side in sides],
            "space": {path: distribution_to_json(d) for path, d in self._distributions.items()},
        }
        if logs:
            self._study = self._storage.get_study_id_from_name(self._name)
            if self._storage.get_study_user_attrs(self._study).get("search") != about:
                raise ValueError("It tells of another search.")
        else:
            self._study = self._storage.create_new_study(sides, self._name)
            self._storage.set_study_user_attr(self._study, "search", about)
            # Where `Study.set_metric_names` puts them.
            key, names = "study:metric_names", about["metric_names"]
            self._storage.set_study_system_attr(self._study, key, names)
        self._num_trials = self._storage.get_n_trials(self._study)

    def _tell(self, trial: Trial) -> bool:
        """Appends what is new of a trial; False where the journal tells of another one."""
        while self._num_trials < trial.number:  # Optuna counts: room for those that begin later
            self._create(_frozen(TrialState.WAITING))
        wanted = self._as_optuna(trial)
        if self._num_trials == trial.number:
            self._create(wanted)
        elif not self._change(trial.number, wanted):
            return False
        self._told[trial.number] = trial
        return True

    def _create(self, frozen: FrozenTrial) -> None:
        self._storage.create_new_trial(self._study, frozen)
        self._num_trials += 1

    def _change(self, number: int, wanted: FrozenTrial) -> bool:
        """Brings a trial that is there up to date; False where it has ended differently."""
        storage = self._storage
        trial_id = storage.get_trial_id_from_study_id_trial_number(self._study, number)
        there = storage.get_trial(trial_id)
        if there.state.is_finished():
            return (there.state, there.params) == (wanted.state, wanted.params)
        if there.state == TrialState.WAITING:
            for path, distribution in wanted.distributions.items():
                value = distribution.to_internal_repr(wanted.params[path])
                storage.set_trial_param(trial_id, path, value, distribution)
            storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        elif there.params != wanted.params:
            return False
        for step, score in wanted.intermediate_values.items():
            if there.intermediate_values.get(step) != score:
                storage.set_trial_intermediate_value(trial_id, step, score)
        # What was said of an unfinished trial does not hold of the one that ran again.
        outdated = {key: None for key in ATTRIBUTES if key in there.user_attrs}
        for key, value in {**outdated, **wanted.user_attrs}.items():
            if there.user_attrs.get(key) != value:
                storage.set_trial_user_attr(trial_id, key, value)
        if wanted.state.is_finished():
            storage.set_trial_state_values(trial_id, wanted.state, wanted.values)
        return True

    def _as_optuna(self, trial: Trial) -> FrozenTrial:
        names = (self._search.metric, *self._search.minimize)
        values: list[float | None] = [*objectives(self._search, trial)]
        # An unfinished trial will run again.
        state, attributes = STATES.get(trial.status, TrialState.RUNNING), {}
        if trial.status != "running":
            given = {name: getattr(trial, name) for name in ATTRIBUTES}
            attributes = {name: value for name, value in given.items() if value not in (None, "")}
        if state == TrialState.COMPLETE and None in values:
            state = TrialState.FAIL
            attributes["reason"] = f"It has no {names[values.index(None)]}."
        # Optuna keeps no value of a failed trial, and of a stopped one that of one objective.
        kept = state == TrialState.COMPLETE or (state == TrialState.PRUNED and len(names) == 1)
        here = {path: d for path, d in self._distributions.items() if path in trial.values}
        return _frozen(
            state,
            values=values if kept and None not in values else None,
            params={path: _choice(d, trial.values[path]) for path, d in here.items()},
            distributions=here,
            user_attrs=attributes,
            intermediate_values=metric_curve(self._search, trial),
            datetime_start=_datetime(trial.started_s),
            datetime_complete=_datetime(trial.ended_s) if state.is_finished() else None,
        )


class _Logs(BaseJournalBackend):
    """A journal in memory, until it is written: one write for many trials."""

    def __init__(self, logs: list[dict[str, Any]]):
        """Of what a file holds; nothing: the next `flush` begins the file anew."""
        self._kept, self._num_before, self._anew = list(logs), 0, not logs
        self._num_written = len(logs)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Those from a number on."""
        return self._kept[log_number_from - self._num_before :]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """For the next `flush`."""
        self._kept += logs

    def flush(self, path: Path) -> None:
        """Writes what is not yet written, and forgets it: who reads has read it by now."""
        new = self._kept[self._num_written - self._num_before :]
        if new and self._anew:
            part = path.with_name(f"{path.name}.part")
            part.unlink(missing_ok=True)
            JournalFileBackend(str(part)).append_logs(new)
            os.replace(part, path)
        elif new:
            lock = JournalFileOpenLock(str(path), GRACE_S)
            JournalFileBackend(str(path), lock).append_logs(new)
        self._anew = self._anew and not new
        self._num_written = self._num_before = self._num_before + len(self._kept)
        self._kept = []


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """What a journal holds; a last line that a killed process left half written is cut off.

    Raises:
        ValueError: a line is damaged.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    logs = [json.loads(line) for line in content[:whole].splitlines()]
    if whole < len(content):
        os.truncate(path, whole)
    return logs


def _remove_old_lock(path: Path) -> None:
    """Removes the lock of a process that was killed while it wrote, before anyone waits for it."""
    lock = path.with_name(f"{path.name}.lock")
    with contextlib.suppress(FileNotFoundError):
        if time.time() - lock.lstat().st_mtime > GRACE_S:
            lock.unlink()


def _with_plain_values(search: SearchConfig) -> SearchConfig:
    """The search with values that Optuna takes as choices, each once."""
    plain = (
        dataclasses.replace(d, values=tuple(dict.fromkeys(map(_plain, d.values))))
        if d.kind in ("grid", "choice")
        else d
        for d in search.dimensions
    )
    return dataclasses.replace(search, dimensions=tuple(plain))


def _choice(distribution: BaseDistribution, value: Any) -> Any:
    return _plain(value) if isinstance(distribution, CategoricalDistribution) else value


def _plain(value: Any) -> Any:
    """What Optuna takes as a choice: lists and mappings become text."""
    return value if isinstance(value, str | int | float | bool | None) else json.dumps(value)


def _datetime(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _frozen(state: TrialState, **given: Any) -> FrozenTrial:
    """A trial of Optuna, which gives it its numbers."""
    empty: dict[str, Any] = {
        "value": None,
        "values": None,
        "datetime_start": None,
        "datetime_complete": None,
        **{name: {} for name in ("params", "distributions", "user_attrs", "intermediate_values")},
    }
    return FrozenTrial(number=-1, trial_id=-1, state=state, system_attrs={}, **{**empty, **given})
