"""Ray Data around `t2ipal.features.extraction`: feature shards computed by a pool of actors."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial

from t2ipal.engine.actors import Work, each_on_actors
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.extraction import FeatureExtractor, FeatureTask
from t2ipal.pools import PoolConfig
from t2ipal.store import Store


def on_ray(
    store: Store,
    config: BackboneConfig,
    tasks: Sequence[FeatureTask],
    pool: PoolConfig | None = None,
) -> Iterator[FeatureTask]:
    """Computes every task on Ray; yields each one that is done.

    Takes what `t2ipal.features.extraction.in_process` takes, and stores the same features.

    Args:
        store: of the run.
        config: of the backbone, which every worker loads.
        tasks: what to compute.
        pool: of the workers; None: as many as the machines that are there can hold.

    Raises:
        RuntimeError: a worker could not load the backbone, or read or write the store.
    """
    load = partial(_load, store, config)
    items = [asdict(task) for task in tasks]
    for item in each_on_actors(load, items, stage="features", device=config.device, pool=pool):
        yield FeatureTask(**item)


def _load(store: Store, config: BackboneConfig) -> Work:
    extract = FeatureExtractor(store, load_backbone(config))

    def work(item: dict[str, str]) -> dict[str, str]:
        extract(FeatureTask(**item))
        return item

    return work
