"""Shard plans: which samples a shard holds, and what they are made with."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from t2ipal.config import fingerprint, from_dict
from t2ipal.store import Caption, Section


@dataclass(frozen=True)
class SampleRequest:
    """One image to make."""

    caption_id: str
    caption: str
    labels: tuple[int, ...]
    """Indices of the classes that the caption names."""
    k: int
    """Which image of the caption, from 0."""


@dataclass(frozen=True)
class ShardPlan:
    """One unit of work: captions x images of each, and what the images are made with."""

    shard: str
    """Name in the store, e.g. "00000"."""
    settings_fingerprint: str
    """Fingerprint of the settings that decide how an image looks."""
    captions: tuple[Caption, ...]
    first_k: int
    """The first image of each caption."""
    num_k: int
    """Images of each caption."""
    positions: tuple[int, ...] | None = None
    """Which of those samples to make, where not all: the failed ones of a retry, or extras."""
    attempt: int = 0
    """At these samples, from 0; each has other seeds."""

    def again(self, shard: str, places: Sequence[int], attempt: int) -> "ShardPlan":
        """The plan of a shard with another attempt at those of this one's samples alone."""
        positions = self.positions
        chosen = tuple(places) if positions is None else tuple(positions[p] for p in places)
        return dataclasses.replace(self, shard=shard, positions=chosen, attempt=attempt)

    @property
    def num_samples(self) -> int:
        """Number of `samples`, without making them."""
        return len(self.captions) * self.num_k if self.positions is None else len(self.positions)

    @property
    def samples(self) -> list[SampleRequest]:
        """The samples in order; a caption's images follow each other."""
        samples = [
            SampleRequest(caption.caption_id, caption.caption, tuple(caption.labels), k)
            for caption in self.captions
            for k in range(self.first_k, self.first_k + self.num_k)
        ]
        if self.positions is None:
            return samples
        return [samples[position] for position in self.positions]

    def identity(self) -> dict[str, Any]:
        """Plain values that differ wherever the shard's content would; the store hashes them."""
        samples = self.samples
        # First attempts were stored before there were others.
        attempt = {"attempt": self.attempt} if self.attempt else {}
        return {
            **attempt,
            "settings": self.settings_fingerprint,
            "num_samples": len(samples),
            "first": f"{samples[0].caption_id}/{samples[0].k}",
            "last": f"{samples[-1].caption_id}/{samples[-1].k}",
            "samples": fingerprint([asdict(sample) for sample in samples]),
        }

    def to_json(self) -> str:
        """Text that `from_json` reads back."""
        return json.dumps({**vars(self), "captions": [vars(c) for c in self.captions]})

    @staticmethod
    def from_json(text: str) -> "ShardPlan":
        """The plan that `to_json` wrote."""
        values = json.loads(text)
        # Not through `from_dict`, which takes ten times as long for each of a million captions.
        captions = tuple(
            Caption(c["caption_id"], c["caption"], tuple(c["labels"])) for c in values["captions"]
        )
        return dataclasses.replace(
            from_dict(ShardPlan, {**values, "captions": ()}), captions=captions
        )


def image_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a SynthesisConfig that one image depends on."""
    return {name: value for name, value in config.items() if name != "images_per_caption"}


def captions_per_shard(images_per_shard: int, num_k: int) -> int:
    """Captions of a shard in which each has `num_k` images: these are never torn apart."""
    return max(1, images_per_shard // num_k)


def plan_shards(
    captions: Sequence[Caption],
    section: Section,
    config: Mapping[str, Any],
    images_per_shard: int,
    extras: Mapping[int, int] | None = None,
) -> list[ShardPlan]:
    """Cuts a section's rectangle of captions x images into shards.

    Args:
        captions: all of the run, in its order.
        section: what is to be planned.
        config: the plain values of a SynthesisConfig.
        images_per_shard: at most, unless one caption alone has more.
        extras: the positions of the only captions that get images, and how many each gets.
    """
    first, num_k = section.first_caption, section.num_k
    order = range(first, first + section.num_captions) if extras is None else sorted(extras)
    plans, size = [], captions_per_shard(images_per_shard, num_k)
    for start in range(0, len(order), size):
        part, positions = order[start : start + size], None
        if extras is not None:
            positions = tuple(
                row * num_k + k for row, at in enumerate(part) for k in range(extras[at])
            )
        plans.append(
            ShardPlan(
                shard=f"{section.first_shard + len(plans):05d}",
                settings_fingerprint=fingerprint(image_settings(config)),
                captions=tuple(captions[at] for at in part),
                first_k=section.first_k,
                num_k=num_k,
                positions=positions,
            )
        )
    return plans
