"""The records that a run's files hold: captions, samples, markers, settings.

Plain frozen values with the names that are stored; docs/run-folder.md is their contract. Knows
nothing of where they lie.
"""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import cache
from typing import Any

from t2ipal.config import added


@dataclass(frozen=True)
class Caption:
    """A caption that was looked at: kept with the classes it names, or rejected with the reason."""

    caption_id: str
    """Unique in its run."""
    caption: str
    labels: tuple[int, ...] = ()
    """Indices into the vocabulary's class names, sorted; empty where it is rejected."""
    reason: str = ""
    """Why it was rejected, e.g. "no class named", "only negated: dog", "not chosen"; "" if kept."""


@dataclass(frozen=True)
class Sample:
    """One image of a run as its sidecar describes it, whether it could be made or not."""

    key: str
    """Name of the sample in its tar, e.g. "00003-00017"."""
    caption_id: str
    caption: str
    labels: tuple[int, ...]
    """Indices of the classes that the caption names."""
    k: int
    """Which image of the caption, from 0."""
    attempt: int
    """Whose seed it has, from 0; each retry of a failed sample is one."""
    seed: int | None
    """Of the sample's noise; None where it failed before it had one."""
    status: str
    """"ok" or "failed"."""
    reason: str
    """Why it failed, else ""."""
    settings: str
    """Fingerprint of what the image was made with."""
    width: int
    """In pixels; 0 where it failed."""
    height: int

    @property
    def is_image(self) -> bool:
        """Whether there is an image of it."""
        return self.status == "ok"


@dataclass(frozen=True)
class ShardCounts:
    """What is counted of a finished shard."""

    shard: str
    num_rows: int
    num_failed: int


@dataclass(frozen=True)
class Part:
    """What a marker says of one of its two objects."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Marker:
    """What makes a shard count: it is written last, once tar and sidecar are there."""

    shard: str
    """Name, e.g. "00003" or "00003-retry1"."""
    plan: Mapping[str, Any]
    """Plain values that differ wherever the shard's content would."""
    plan_hash: str
    num_rows: int
    """Samples, those without an image included."""
    num_failed: int
    tar: Part
    sidecar: Part
    seconds: float
    """That a device worked to make the images."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of what made them; none in the oldest shards."""
    other_seconds: Mapping[str, float] | None = added(None)
    """That other steps took, by their names: `encode`, `store`; None in the oldest shards."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """config.json: what a run keeps while it grows."""

    synthesis: Mapping[str, Any]
    """The plain values of a SynthesisConfig, without `images_per_caption`."""
    vocabulary: str
    class_names: tuple[str, ...]
    prompt_names: tuple[str, ...]
    images_per_shard: int
    model: Mapping[str, str] | None = added(None)
    """What the names of its model stood for when the run was begun; None in the oldest runs."""
    test_images: Mapping[str, Any] | None = added(None)
    """Images whose captions were left out (mode clean) or counted (ancestor); None: not looked
    at."""


@dataclass(frozen=True, kw_only=True)
class RunTotals(RunSettings):
    """The settings with all that the run was asked for so far; its `synthesis` is whole."""

    num_captions: int
    captions: str
    """Fingerprint of the kept captions."""

    @property
    def images_per_caption(self) -> int:
        """Images of each caption, those of repairs not counted."""
        return self.synthesis["images_per_caption"]


@dataclass(frozen=True)
class ManifestShard:
    """One shard of a manifest."""

    shard: str
    num_rows: int
    num_failed: int
    tar: Part
    sidecar: Part


@dataclass(frozen=True)
class Manifest:
    """manifest.json: what a finished run holds."""

    class_names: tuple[str, ...]
    num_images: int
    num_failed: int
    settings: RunTotals
    shards: tuple[ManifestShard, ...]


def known(kind: type, values: Any) -> Any:
    """The values of a record but for fields that a later version added, at any depth."""
    if not isinstance(values, Mapping):
        return values
    hints = _hints(kind)
    return {name: _known_in(hints[name], value) for name, value in values.items() if name in hints}


def _known_in(hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return [_known_in(typing.get_args(hint)[0], item) for item in value]
    is_record = isinstance(hint, type) and is_dataclass(hint)
    return known(hint, value) if is_record else value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
