"""One stored sample made again, byte for byte, from what the store says of it."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from t2ipal.config import differences, from_dict, require
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.store import (
    Sample,
    Store,
    read_encoded_images,
    read_marker,
    read_settings,
)
from t2ipal.store.images import ENDINGS
from t2ipal.synthesis.growth import plan_of_shard
from t2ipal.synthesis.worker import ShardWorker, SynthesizerFactory, synthesizer_factory

NUMBER = "([0-9]{5}|[1-9][0-9]{5,})"
KEY = re.compile(f"{NUMBER}(-retry[1-9][0-9]*)?-{NUMBER}")
"""Of a sample, as `ShardWorker` writes it."""


class Remade(NamedTuple):
    """A sample made again."""

    sample: Sample
    image: bytes
    """Encoded as it is stored."""
    same: bool | None
    """Whether these are the bytes that are stored; None where none are."""
    differing: Sequence[str] = ()
    """Where they are not: which versions and devices differ."""


def remake(store: Store, key: str, factory: SynthesizerFactory | None = None) -> Remade:
    """Makes one stored sample again, alone, from what the store says of it.

    On the same kind of device it comes out byte for byte: its micro-batch is made whole.

    Args:
        store: home of the run.
        key: of the sample, as in its tar, e.g. "00003-00017".
        factory: makes the synthesizer; None is `t2ipal.diffusion.synthesizer.Synthesizer`.

    Raises:
        ValueError: the run has no such sample, or made its shard from another plan.
        RuntimeError: the sample fails.
    """
    settings = read_settings(store)
    shard, _, place = key.rpartition("-")
    plan = plan_of_shard(store, settings, shard) if KEY.fullmatch(key) else None
    require(
        plan is not None and int(place) < plan.num_samples,
        f"No sample {key!r} in {store.uri}. A sample is named as in its tar, such as 00003-00017.",
    )
    assert plan is not None
    marker = read_marker(store, shard, plan.identity())
    config = from_dict(SynthesisConfig, settings.synthesis)
    worker = ShardWorker(store, config, synthesizer_factory(settings.model, factory))
    row, image = worker.remake(plan, int(place))
    if image is None:
        raise RuntimeError(f"Sample {key} failed again: {row.reason}")
    if marker is None:
        return Remade(row, image, None)
    stored = {other.key: data for other, data in read_encoded_images(store, shard)}
    if stored.get(key, image) == image:
        return Remade(row, image, True if key in stored else None)
    here = {name: worker.versions.get(name) for name in marker.versions}  # older ones say less
    return Remade(row, image, False, differences(here, marker.versions))


def remake_into(store: Store, key: str) -> dict[str, Any]:
    """Makes a sample again and stores it as `remade/KEY.jpg` (.png and .webp in a run of those).

    Args:
        store: home of the run.
        key: of the sample.

    Raises:
        ValueError: as `remake`.
        RuntimeError: the sample fails.
    """
    remade = remake(store, key)
    config = from_dict(SynthesisConfig, read_settings(store).synthesis)
    place = f"remade/{key}.{ENDINGS[config.image_format]}"
    store.write(place, remade.image)
    summary = {
        "output": f"{store.uri}/{place}",
        "same_as_stored": remade.same,
        **vars(remade.sample),
    }
    return summary if remade.same is not False else {**summary, "differences": remade.differing}
