"""The search in MLflow: a run for the search, and below it one for each trial.

A trial's run is there while the trial runs; its curves follow when it ends, all at once: a few
requests a trial. What a killed process left is found again by its tags and gone on with.
"""

import hashlib
import importlib.util
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from t2ipal.config import require, to_dict
from t2ipal.search.results import Trial, best
from t2ipal.search.space import SearchConfig

EXPERIMENT = "t2ipal"
SCHEMES = ("http://", "https://", "sqlite:///", "postgresql", "mysql", "mssql", "databricks")
SEARCH, TRIAL, PARENT = "t2ipal.search", "t2ipal.trial", "mlflow.parentRunId"
"""Tags, by which runs are found again."""
STATES = {"ok": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
MAX_UPDATE_S = 2.0
"""For which a slow server may hold up the search at a time; the rest follows at the next update."""
MAX_METRICS = 1000
"""That MLflow takes in one request."""
OUTCOME = ("images", "seconds", "spread")


def require_mlflow(uri: str) -> None:
    """Raises ValueError where MLflow is not installed, or the address can be none of its own."""
    require(
        uri.startswith(SCHEMES),
        "mlflow must be the address of a server as in http://HOST:5000, or a database as in "
        f"sqlite:///mlflow.db, got {uri!r}.",
    )
    require(
        importlib.util.find_spec("mlflow") is not None,
        "mlflow needs MLflow, which is not installed. Run pip install 't2ipal[mlflow]'.",
    )


class MlflowRuns:
    """Keeps a server's runs in step with the trials."""

    def __init__(self, search: SearchConfig, uri: str, name: str):
        """Finds or begins the search's run.

        Args:
            search: that the trials are of.
            uri: of the server or database.
            name: of the search's run; what no other search on the server has, such as its place.
        """
        # A server that is gone must not hold up the search for minutes, as it does by default.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow.tracking import MlflowClient

        self._search, self._client = search, MlflowClient(uri)
        self._experiment = self._find_experiment()
        described = json.dumps([name, to_dict(search)], sort_keys=True, default=str)
        self._parent = self._find_parent(name, hashlib.sha256(described.encode()).hexdigest())
        self._runs, self._ended = self._find_trials()

    def update(self, trials: Sequence[Trial], final: bool) -> None:
        """Tells of what is new; of all of it at the end, when the search's run ends too."""
        begun = time.monotonic()
        for trial in trials:
            if trial.number not in self._ended:
                self._tell(trial)
            if not final and time.monotonic() - begun > MAX_UPDATE_S:
                return
        if final:
            winner = best(self._search, trials)
            if winner is not None:
                value = getattr(winner, self._search.metric)
                self._client.log_metric(self._parent, f"best_{self._search.metric}", value)
                self._client.set_tag(self._parent, "t2ipal.best_trial", winner.number)
            self._client.set_terminated(self._parent)

    def _find_experiment(self) -> str:
        there = self._client.get_experiment_by_name(EXPERIMENT)
        return self._client.create_experiment(EXPERIMENT) if there is None else there.experiment_id

    def _find_parent(self, name: str, search: str) -> str:
        wanted = f"tags.`{SEARCH}` = '{search}'"
        runs = self._client.search_runs([self._experiment], wanted, max_results=1)
        if runs:
            parent = runs[0].info.run_id
            self._client.update_run(parent, status="RUNNING")
            return parent
        run = self._client.create_run(self._experiment, tags={SEARCH: search}, run_name=name)
        for key in ("metric", "searcher", "scheduler", "num_trials"):
            self._client.log_param(run.info.run_id, key, getattr(self._search, key))
        return run.info.run_id

    def _find_trials(self) -> tuple[dict[int, str], set[int]]:
        """Runs of trials that are there by number, and the numbers of those that have ended."""
        runs, ended, token = {}, set(), None
        wanted = f"tags.`{PARENT}` = '{self._parent}'"
        while True:
            page = self._client.search_runs(
                [self._experiment], wanted, max_results=1000, page_token=token
            )
            for run in page:
                number = int(run.data.tags[TRIAL])
                runs[number] = run.info.run_id
                if run.info.status in STATES.values():
                    ended.add(number)
            token = page.token
            if not token:
                return runs, ended

    def _tell(self, trial: Trial) -> None:
        from mlflow.entities import Param

        run_id = self._runs.get(trial.number)
        given = [Param(name, str(value)) for name, value in trial.values.items()]
        if run_id is None:
            run = self._client.create_run(
                self._experiment,
                _milliseconds(trial.started_s),
                {PARENT: self._parent, TRIAL: str(trial.number)},
                f"{trial.number:05d}",
            )
            run_id = self._runs[trial.number] = run.info.run_id
            self._client.log_batch(run_id, params=given)
        if trial.has_ended:
            metrics = _metrics(trial)
            self._client.log_batch(run_id, params=given)  # again: it may have been killed between
            for first in range(0, len(metrics), MAX_METRICS):
                self._client.log_batch(run_id, metrics=metrics[first : first + MAX_METRICS])
            if trial.reason:
                self._client.set_tag(run_id, "mlflow.note.content", trial.reason)
            self._client.set_terminated(run_id, STATES[trial.status], _milliseconds(trial.ended_s))
            self._ended.add(trial.number)


def _metrics(trial: Trial) -> list[Any]:
    """Its curves, a point for each epoch, and what it took."""
    from mlflow.entities import Metric

    begun, ended = _milliseconds(trial.started_s) or 0, _milliseconds(trial.ended_s) or 0
    points = [("validation_mAP", score, epochs) for epochs, score in trial.scores]
    losses = enumerate(trial.losses, 1)
    points += [("loss", loss, epochs) for epochs, loss in losses if loss is not None]
    last = max((epochs for _, _, epochs in points), default=1)
    outcome = [(name, getattr(trial, name), last) for name in OUTCOME]
    points += [point for point in outcome if point[1] is not None]
    return [
        Metric(name, value, begun + (ended - begun) * epochs // last, epochs)
        for name, value, epochs in points
    ]


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(1000 * seconds)
