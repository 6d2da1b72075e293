"""Shard plans: which samples a shard holds, and the worker that turns a plan into a stored shard.

No Ray here: the same worker serves an actor pool and a plain loop, so both store the same bytes.
"""

import dataclasses
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import PIL

from t2ipal.captions import LabelledCaption
from t2ipal.config import fingerprint, from_dict
from t2ipal.images import encode_image
from t2ipal.store import Section, Store, commit_shard, describes, read_marker

Batch = dict[str, Any]
Made = list[tuple[dict[str, Any], bytes | None]]
"""Rows of samples and their encoded images, None where a sample failed."""
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
    """One unit of work: captions x images of each, and what the images are made with."""

    shard: str
    """Name in the store, e.g. "00000"."""
    settings: str
    """Fingerprint of the settings that decide how an image looks."""
    captions: tuple[LabelledCaption, ...]
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
    def samples(self) -> list[Sample]:
        """The samples in order; a caption's images follow each other."""
        samples = [
            Sample(caption.caption_id, caption.text, tuple(caption.labels), k)
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
            "settings": self.settings,
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
            LabelledCaption(c["caption_id"], c["text"], tuple(c["labels"]))
            for c in values["captions"]
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
    captions: Sequence[LabelledCaption],
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
                settings=fingerprint(image_settings(config)),
                captions=tuple(captions[at] for at in part),
                first_k=section.first_k,
                num_k=num_k,
                positions=positions,
            )
        )
    return plans


def exact_synthesizer(config: Any, model: Mapping[str, str]) -> Callable[[Batch], Batch]:
    """The `Synthesizer` of this model, as `t2ipal.identity` tells it, and of no other.

    Raises:
        ValueError: the files on this machine are of another one.
    """
    from t2ipal.identity import pinned
    from t2ipal.synthesis import Synthesizer

    return Synthesizer(pinned(config, model))


class ShardWorker:
    """Loads a synthesizer once, then turns shard plans into stored shards."""

    def __init__(
        self,
        store: Store,
        config: Any,
        factory: SynthesizerFactory | None = None,
        num_threads: int | None = None,
        features: Any = None,
    ):
        """Loads the pipeline, and the backbone where one is wanted.

        Args:
            store: of the run.
            config: the SynthesisConfig.
            factory: makes the synthesizer; None is `t2ipal.synthesis.Synthesizer`.
            num_threads: of torch; None leaves what is set.
            features: the BackboneConfig of features to store beside each shard; None: none.
        """
        if factory is None:
            from t2ipal.synthesis import Synthesizer

            factory = Synthesizer
        self.store = store
        self.config = config
        self.synthesizer = factory(config)
        # A synthesizer may tell what its images depend on beside the config.
        self.versions = {"pillow": PIL.__version__, **getattr(self.synthesizer, "versions", {})}
        self._device = threading.Lock()
        self._encoder = ThreadPoolExecutor(1, "encoder")
        self._extract = None
        if features is not None:
            from t2ipal.extraction import FeatureExtractor
            from t2ipal.features import load_backbone

            backbone = load_backbone(features)
            # An accelerator that draws has no memory to spare for features meanwhile.
            turn = None if backbone.device.type == "cpu" else self._device
            self._extract = FeatureExtractor(store, backbone, turn)
        torch = sys.modules.get("torch")  # a synthesizer without torch needs no threads of it
        if torch is not None and num_threads is not None:
            torch.set_num_threads(num_threads)

    def __call__(self, plan: ShardPlan) -> dict[str, Any]:
        """Makes and commits one shard, then its features if wanted; returns its marker.

        While one micro-batch is encoded, the device works on the next. Two threads may call at
        once: the device makes one's images while the other encodes its last ones and uploads.
        A shard that is there already, another driver's or from before a crash, is left as it is.
        """
        if (there := read_marker(self.store, plan.shard, plan.identity())) is not None:
            return there
        samples, made, seconds = plan.samples, list[Any](), 0.0
        encoding: Future[Made] | None = None
        # For the whole shard: two by turns would end, and leave the device idle, at the same time.
        with self._device:
            for batch in self._batches(plan):
                started = time.monotonic()
                output = self._generate(samples[batch.start : batch.stop], plan.attempt)
                seconds += time.monotonic() - started
                # No more than one waits: images would pile up where the device is faster.
                made += encoding.result() if encoding else []
                encoding = self._encoder.submit(self._encode, plan, samples, batch, output)
        made += encoding.result() if encoding else []
        rows, images = zip(*made, strict=True)
        image_format = self.config.image_format
        marker = commit_shard(
            self.store, plan.shard, plan.identity(), rows, images, seconds, image_format,
            self.versions,
        )  # fmt: skip
        # After the marker: where there is no shard there are no features. Where someone else was
        # first with other bytes, theirs count, and extraction will look at them.
        if self._extract is not None and describes(marker, rows, images, image_format):
            self._extract.images_at_hand(plan.shard, [data for data in images if data is not None])
        return marker

    def remake(self, plan: ShardPlan, index: int) -> tuple[dict[str, Any], bytes | None]:
        """One sample of a plan again, its row and its bytes, made within its own micro-batch."""
        batch = next(batch for batch in self._batches(plan) if index in batch)
        samples = plan.samples
        output = self._generate(samples[batch.start : batch.stop], plan.attempt)
        return self._encode(plan, samples, batch, output)[index - batch.start]

    def _batches(self, plan: ShardPlan) -> list[range]:
        """Positions of each micro-batch.

        They depend on the plan alone: in half precision, a sample's neighbors show in its last
        bits.
        """
        count, size = plan.num_samples, self.config.batch_size
        return [range(start, min(start + size, count)) for start in range(0, count, size)]

    def _encode(
        self, plan: ShardPlan, samples: Sequence[Sample], batch: range, output: Mapping[str, Any]
    ) -> Made:
        """Rows and encoded images of one micro-batch."""
        return [
            self._row(plan, index, samples[index], output, index - batch.start) for index in batch
        ]

    def _generate(self, samples: Sequence[Sample], attempt: int) -> Mapping[str, Any]:
        """The synthesizer's output; if it raises, one sample after another to find the culprit.

        Raises:
            RuntimeError: the device has failed, which is no sample's fault.
        """
        try:
            return self.synthesizer(
                {
                    "caption_id": np.array([sample.caption_id for sample in samples]),
                    "caption": np.array([sample.caption for sample in samples]),
                    "k": np.array([sample.k for sample in samples], dtype=np.int64),
                    "labels": [sample.labels for sample in samples],
                    "attempt": np.full(len(samples), attempt),
                }
            )
        except Exception as error:
            from t2ipal.devices import is_device_fault  # loads torch

            if is_device_fault(error):
                raise
            if len(samples) == 1:
                reason = f"{type(error).__name__}: {error}"
                return {"status": ["failed"], "reason": [reason], "seed": [None], "image": [None]}
        singles = [self._generate([sample], attempt) for sample in samples]
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
            "attempt": plan.attempt,
            "seed": None if seed is None else int(seed),
            "status": "ok" if ok else "failed",
            "reason": "" if ok else str(batch["reason"][position]) or "no reason given",
            "settings": plan.settings,
            "width": image.shape[1] if ok else 0,
            "height": image.shape[0] if ok else 0,
        }
        config = self.config
        look = config.image_format, config.jpeg_quality, config.jpeg_subsampling
        return row, encode_image(image, *look) if ok else None
