"""Shard plans: which samples a shard holds, and the worker that turns a plan into a stored shard.

No Ray here: the same worker serves an actor pool and a plain loop, so both store the same bytes.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from t2ipal.captions import LabelledCaption
from t2ipal.config import fingerprint, require
from t2ipal.store import Store, commit_shard, encode_jpeg

Batch = dict[str, np.ndarray]
SynthesizerFactory = Callable[..., Callable[[Batch], Batch]]
"""Called once per worker with the config; what it gives, with one micro-batch after another."""


@dataclass(frozen=True)
class Sample:
    """One image to make."""

    caption_id: str
    caption: str
    labels: tuple[int, ...]
    """Indices of the classes that the caption names."""
    k: int
    """Which image of the caption, from 0."""


@dataclass(frozen=True)
class ShardPlan:
    """One unit of work: the samples of one shard in order, and what they are made with."""

    shard: str
    """Name in the store, e.g. "00000"."""
    settings: str
    """Fingerprint of the settings that decide how an image looks."""
    samples: tuple[Sample, ...]

    def identity(self) -> dict[str, Any]:
        """Plain values that differ wherever the shard's content would; the store hashes them."""
        first, last = self.samples[0], self.samples[-1]
        return {
            "settings": self.settings,
            "num_samples": len(self.samples),
            "first": f"{first.caption_id}/{first.k}",
            "last": f"{last.caption_id}/{last.k}",
            "samples": fingerprint([asdict(sample) for sample in self.samples]),
        }

    def to_json(self) -> str:
        """Text that `from_json` reads back."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "ShardPlan":
        """The plan that `to_json` wrote."""
        values = json.loads(text)
        samples = tuple(
            Sample(**{**sample, "labels": tuple(sample["labels"])}) for sample in values["samples"]
        )
        return ShardPlan(values["shard"], values["settings"], samples)


def image_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a SynthesisConfig that one image depends on."""
    return {name: value for name, value in config.items() if name != "images_per_caption"}


def plan_shards(
    captions: Sequence[LabelledCaption],
    config: Mapping[str, Any],
    images_per_shard: int,
) -> list[ShardPlan]:
    """Cuts captions x images per caption into shards; a caption's images stay together.

    Args:
        captions: in the order in which they are to be stored.
        config: the plain values of a SynthesisConfig.
        images_per_shard: of every shard but the last, which may hold fewer.
    """
    require(images_per_shard > 0, f"images_per_shard must be > 0, got {images_per_shard}.")
    settings = fingerprint(image_settings(config))
    samples = [
        Sample(caption.caption_id, caption.text, tuple(caption.labels), k)
        for caption in captions
        for k in range(config["images_per_caption"])
    ]
    starts = range(0, len(samples), images_per_shard)
    return [
        ShardPlan(f"{index:05d}", settings, tuple(samples[start : start + images_per_shard]))
        for index, start in enumerate(starts)
    ]


class ShardWorker:
    """Loads a synthesizer once, then turns shard plans into stored shards."""

    def __init__(
        self,
        store: Store,
        config: Any,
        factory: SynthesizerFactory | None = None,
        num_threads: int | None = None,
    ):
        """Loads the pipeline.

        Args:
            store: of the run.
            config: the SynthesisConfig.
            factory: makes the synthesizer; None is `t2ipal.synthesis.Synthesizer`.
            num_threads: of torch; None leaves what is set.
        """
        if factory is None:
            from t2ipal.synthesis import Synthesizer

            factory = Synthesizer
        self.store = store
        self.config = config
        self.synthesizer = factory(config)
        torch = sys.modules.get("torch")  # a synthesizer without torch needs no threads of it
        if torch is not None and num_threads is not None:
            torch.set_num_threads(num_threads)

    def __call__(self, plan: ShardPlan) -> dict[str, Any]:
        """Makes and commits one shard; returns its marker."""
        rows: list[dict[str, Any]] = []
        images: list[bytes | None] = []
        # Where a micro-batch begins and ends depends on the plan alone: in half precision, the
        # neighbors of a sample show in its last bits.
        for start in range(0, len(plan.samples), self.config.batch_size):
            samples = plan.samples[start : start + self.config.batch_size]
            batch = self._generate(samples)
            for position, sample in enumerate(samples):
                row, image = self._row(plan, len(rows), sample, batch, position)
                rows.append(row)
                images.append(image)
        assert len(rows) == len(plan.samples)
        return commit_shard(self.store, plan.shard, plan.identity(), rows, images)

    def _generate(self, samples: Sequence[Sample]) -> Mapping[str, Any]:
        """The synthesizer's output; if it raises, one sample after another to find the culprit."""
        try:
            return self.synthesizer(
                {
                    "caption_id": np.array([sample.caption_id for sample in samples]),
                    "caption": np.array([sample.caption for sample in samples]),
                    "k": np.array([sample.k for sample in samples], dtype=np.int64),
                }
            )
        except Exception as error:
            if len(samples) == 1:
                reason = f"{type(error).__name__}: {error}"
                return {"status": ["failed"], "reason": [reason], "seed": [None], "image": [None]}
        singles = [self._generate([sample]) for sample in samples]
        names = ("status", "reason", "seed", "image")
        return {name: [single[name][0] for single in singles] for name in names}

    def _row(
        self, plan: ShardPlan, index: int, sample: Sample, batch: Mapping[str, Any], position: int
    ) -> tuple[dict[str, Any], bytes | None]:
        image, seed = batch["image"][position], batch["seed"][position]
        ok = batch["status"][position] == "ok"
        row = {
            "key": f"{plan.shard}-{index:05d}",
            "caption_id": sample.caption_id,
            "caption": sample.caption,
            "labels": list(sample.labels),
            "k": sample.k,
            "seed": None if seed is None else int(seed),
            "status": "ok" if ok else "failed",
            "reason": "" if ok else str(batch["reason"][position]) or "no reason given",
            "settings": plan.settings,
            "width": image.shape[1] if ok else 0,
            "height": image.shape[0] if ok else 0,
        }
        return row, encode_jpeg(image, self.config.jpeg_quality) if ok else None
