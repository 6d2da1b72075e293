"""Ray Data around `t2ipal.evaluation.stored_sets`: parts of a test set by a pool of actors."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from t2ipal.engine.actors import Work, each_on_actors
from t2ipal.evaluation.stored_sets import PartExtractor, SetPart, Source
from t2ipal.features.backbone import Backbone, load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.pools import PoolConfig
from t2ipal.store import Store


def on_ray(
    place: Store,
    backbone: Backbone,
    source: Source,
    parts: Sequence[SetPart],
    pool: PoolConfig | None = None,
) -> Iterator[int]:
    """Computes every part on Ray; yields the number of images of each.

    Takes what `t2ipal.evaluation.stored_sets.in_process` takes, and stores the same features.

    Args:
        place: where the features are stored.
        backbone: whose like every worker loads.
        source: home of the photographs, or the scenes themselves.
        parts: what to compute.
        pool: how many workers, and of what size.

    Raises:
        RuntimeError: a worker could not load the backbone, or read or write a store.
    """
    load = partial(_load, place, backbone.config, source)
    items = [asdict(part) for part in parts]
    yield from each_on_actors(
        load, items, stage="test sets", device=backbone.config.device, pool=pool
    )


def _load(place: Store, config: BackboneConfig, source: Source) -> Work:
    extract = PartExtractor(place, load_backbone(config), source)

    def work(item: dict[str, Any]) -> int:
        return extract(SetPart(**item))

    return work
