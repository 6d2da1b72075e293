"""Ray Data around `t2ipal.recognition.predict`: batches of photographs seen by a pool of actors."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from t2ipal.engine.actors import Work, each_on_actors
from t2ipal.pools import PoolConfig
from t2ipal.recognition.predict import Batch, PredictionWork, Predictor
from t2ipal.recognition.rows import Prediction


def on_ray(
    work: PredictionWork, batches: Sequence[Batch], pool: PoolConfig | None = None
) -> Iterator[list[Prediction]]:
    """Looks at every batch on Ray; yields their rows in the order of the batches.

    Takes what `t2ipal.recognition.predict.in_process` takes, and gives the same rows.

    Args:
        work: what every worker loads.
        batches: what to look at.
        pool: of the workers; None: as many as the machines that are there can hold.

    Raises:
        RuntimeError: a worker could not load the recognizers or reach the photographs.
    """
    items = [asdict(batch) for batch in batches]
    load, device = partial(_load, work), work.where.device
    for rows in each_on_actors(load, items, stage="predictions", device=device, pool=pool):
        yield [Prediction.from_dict(values) for values in rows]


def _load(work: PredictionWork) -> Work:
    predict = Predictor(work)

    def look(item: dict[str, Any]) -> list[dict[str, Any]]:
        rows = predict(Batch(tuple(item["keys"]), item["num_shown"]))
        return [asdict(each) for each in rows]

    return look
