"""Who does the work of each stage: Ray's workers, or this process alone (`in_process`).

The one place that decides it; loads neither Ray nor a stage before it is asked.
"""

from functools import partial
from typing import Any

from t2ipal.engine.config import PopulationGroup, TrainingGroup
from t2ipal.features.config import BackboneConfig
from t2ipal.pools import PoolConfig
from t2ipal.store import Store


def synthesis_workers(in_process: bool) -> Any:
    """The `workers` of `t2ipal.synthesis.making`."""
    if in_process:
        from t2ipal.synthesis.worker import in_process as workers
    else:
        from t2ipal.engine.pool import on_ray as workers
    return workers


def extract(
    store: Store,
    backbone: BackboneConfig,
    in_process: bool,
    pool: PoolConfig | None = None,
    progress: bool = True,
) -> str:
    """Computes what features a run lacks, with a bar or none; their folder in the store."""
    from t2ipal.features.extraction import extract_run

    if in_process:
        from t2ipal.features.extraction import in_process as workers
    else:
        from t2ipal.engine.extraction import on_ray

        workers = partial(on_ray, pool=pool)
    return extract_run(store, backbone, workers=workers, progress=progress)


def training_workers(group: TrainingGroup, cpus_per_worker: int = 1) -> Any:
    """The `workers` of `t2ipal.training.runs`."""
    least, most = group.sizes
    if most == 0:
        from t2ipal.training.runs import in_process as workers

        return workers
    from t2ipal.engine.training import on_ray

    return partial(
        on_ray,
        num_workers=most if least == most else (least, most),
        use_gpu=group.use_gpu,
        cpus_per_worker=cpus_per_worker,
        max_failures=group.max_failures,
    )


def search_workers(in_process: bool, group: PopulationGroup) -> Any:
    """Who trains the trials of a search: `t2ipal.search.running.in_process` or its like."""
    if in_process:
        from t2ipal.search.running import in_process as workers

        return partial(workers, population=group.population)
    from t2ipal.engine.search import on_ray

    return partial(on_ray, group=group)


def test_set_workers(in_process: bool, pool: PoolConfig | None = None) -> Any:
    """The `workers` of `t2ipal.evaluation.stored_sets`."""
    if in_process:
        from t2ipal.evaluation.stored_sets import in_process as workers

        return workers
    from t2ipal.engine.test_sets import on_ray

    return partial(on_ray, pool=pool)


def item_workers(in_process: bool, stage: str, device: str, pool: PoolConfig | None = None) -> Any:
    """Takes `load` and items, and gives each item's result in turn: what `load` gives does the work
    of one item, here or in every worker. Metrics count the work under `stage`.
    """
    if in_process:
        return lambda load, items: map(load(), items)
    from t2ipal.engine.actors import each_on_actors

    return partial(each_on_actors, stage=stage, device=device, pool=pool)


def prediction_workers(in_process: bool, pool: PoolConfig | None = None) -> Any:
    """The `workers` of `t2ipal.recognition.predict`."""
    if in_process:
        from t2ipal.recognition.predict import in_process as workers

        return workers
    from t2ipal.engine.prediction import on_ray

    return partial(on_ray, pool=pool)


def writing_workers(in_process: bool, pool: PoolConfig | None = None) -> Any:
    """The `workers` of `t2ipal.captions.written`."""
    if in_process:
        from t2ipal.captions.written import in_process as workers

        return workers
    from t2ipal.engine.writing import on_ray

    return partial(on_ray, pool=pool)
