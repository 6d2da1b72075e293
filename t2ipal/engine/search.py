"""Ray Tune around `t2ipal.search`: a Ray trial is a population, whose trials are rows of their own.

Tune starts the populations, gives them their share of the machines and starts a lost one again; it
knows nothing of a single trial. A search that was stopped goes on from the trials that are kept,
never from Tune's own state, which is pickled.
"""

import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from t2ipal.engine.config import PopulationGroup
from t2ipal.engine.waiting import signs_of_life, watch_workers
from t2ipal.methods.contract import FrozenBackbone
from t2ipal.pools import num_fitting
from t2ipal.search.halving import Halving
from t2ipal.search.population import SearchData, train_population
from t2ipal.search.results import SearchFolder
from t2ipal.search.running import Keeper
from t2ipal.search.setting import Setting
from t2ipal.search.space import SearchConfig
from t2ipal.search.suggestions import Suggestions, population_size

MAX_FAILURES = 2
"""Times that a population is begun anew whose process was lost."""


def on_ray(
    search: SearchConfig,
    start: Setting,
    data: SearchData,
    load_backbone: Callable[[], FrozenBackbone],
    folder: SearchFolder,
    deadline_s: float = math.inf,
    *,
    group: PopulationGroup,
) -> None:
    """Trains the trials that have not ended, and keeps each in the store as it goes on.

    Args:
        search: the checked space.
        start: everything that the space does not vary.
        data: what is learned from, and what is scored on.
        load_backbone: called in every worker.
        folder: where trials are kept.
        deadline_s: since 1970; no population begins after it, and who runs is left unfinished.
        group: how large the workers are, and how many.

    Raises:
        RuntimeError: no worker started for too long.
    """
    known = folder.trials()
    suggestions = Suggestions(search, known)
    if not suggestions.num_left:
        return
    cpus, gpus = group.cpus_per_population, group.gpus_per_population or 0.0
    side_by_side = group.max_populations or _fitting(cpus, gpus)
    size = population_size(search, suggestions.num_left, side_by_side, group.population)
    watch, signs = watch_workers(1, cpus, gpus)
    judge = _judge(search, folder) if search.scheduler == "asha" else None
    populations = _Populations(suggestions, folder, size, deadline_s)
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths are the job's
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # it would wait for the trials
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # of populations, as trials
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the other form says something at verbose 0
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failed trial is a row, not a page
    # Tune puts each of these into the object store once. Of features that are not in memory these
    # are the names of files, which the trials of a machine map together.
    trainable = tune.with_parameters(
        _train,
        start=start,
        search=search,
        data=data,
        load_backbone=load_backbone,
        folder=SearchFolder(folder.store, folder.folder),
        judge=judge,
        signs=signs,
        deadline_s=deadline_s,
    )
    with tempfile.TemporaryDirectory(prefix="t2ipal-tune-") as logs:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": cpus, "gpu": gpus}),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                search_alg=populations,
                max_concurrent_trials=side_by_side,
                reuse_actors=True,  # a process takes some seconds to start
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=logs,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
        with watch.over():
            results = tuner.fit()
    for result in results:
        if result.error is not None:
            assert result.config is not None
            _keep_lost(folder, result.config["population"], result.error)


class _Judge(Halving):
    """Begun anew, it knows what the store knows."""

    def __init__(self, search: SearchConfig, folder: SearchFolder) -> None:
        super().__init__(search, folder.trials())


def _judge(search: SearchConfig, folder: SearchFolder) -> Any:
    """Whom all populations ask: on the driver's machine, without which the search ends anyway."""
    node = ray.get_runtime_context().get_node_id()
    options = {
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": -1,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
    return ray.remote(_Judge).options(**options).remote(search, folder)


def _fitting(cpus: float, gpus: float) -> int:
    """Workers of a size that the machines that are there now can hold."""
    there = ray.cluster_resources()
    return max(num_fitting(there.get("CPU", 0), there.get("GPU", 0), cpus, gpus), 1)


class _Populations(Searcher):
    """What Tune asks for the next population, and tells when one has ended."""

    def __init__(
        self, suggestions: Suggestions, folder: SearchFolder, size: int, deadline_s: float
    ) -> None:
        super().__init__(metric=None, mode=None)
        self.suggestions, self.folder, self.size = suggestions, folder, size
        self.deadline_s = deadline_s
        self.begun: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        """The settings of one; called by Tune."""
        settings = {} if time.time() > self.deadline_s else self.suggestions.next(self.size)
        if not settings:
            return Searcher.FINISHED
        population = self.folder.begin_population(settings)
        self.begun[trial_id] = population
        return {"population": population, "settings": [*settings.items()]}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Called by Tune, also for one whose process was lost."""
        self.suggestions.tell(self.folder.population(self.begun.pop(trial_id)))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a search goes on from its trials."""

    def restore(self, checkpoint_path: str) -> None:
        """Never called."""


def _train(
    config: dict[str, Any],
    *,
    start: Setting,
    search: SearchConfig,
    data: SearchData,
    load_backbone: Callable[[], FrozenBackbone],
    folder: SearchFolder,
    judge: Any,
    signs: str,
    deadline_s: float,
) -> None:
    """A population in a worker of its own."""

    def stopped(epochs: int, metrics: Mapping[int, float]) -> Mapping[int, str]:
        return {} if judge is None else ray.get(judge.stopped.remote(epochs, metrics))

    with signs_of_life(signs):
        keep = Keeper(folder, config["population"], dict(config["settings"]))
        backbone = load_backbone()
        train_population(keep.settings, start, search, data, backbone, stopped, keep, deadline_s)
    tune.report({"num_trials": len(config["settings"])})


def _keep_lost(folder: SearchFolder, population: int, error: Any) -> None:
    """Writes of a population whose process was lost that its running trials are, and why."""
    reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
    trials = folder.population(population)
    left = [t if t.has_ended else replace(t, status="unfinished", reason=reason) for t in trials]
    folder.keep(population, left)
