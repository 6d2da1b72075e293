"""The worker that turns a plan into a stored shard.

No Ray here: the same worker serves an actor pool and a plain loop, so both store the same bytes.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import numpy as np
import PIL

from t2ipal.halting import halt_if_asked
from t2ipal.store import Marker, Sample, ShardCounts, Store, commit_shard, describes, read_marker
from t2ipal.store.images import encode_image
from t2ipal.synthesis.plans import SampleRequest, ShardPlan
from t2ipal.synthesis.request import ExecutionConfig

Batch = dict[str, Any]
Made = list[tuple[Sample, bytes | None]]
"""Rows of samples and their encoded images, None where a sample failed."""
SynthesizerFactory = Callable[..., Callable[[Batch], Batch]]
"""Called once per worker with the config; what it gives, with one micro-batch after another."""


AfterCommit = Callable[[str, Mapping[str, bytes]], None]
"""Called with a shard that the worker has committed, and its encoded images by their keys."""
AfterCommitFactory = Callable[[Store, AbstractContextManager[Any]], AfterCommit]
"""Called once per worker with the store, and with what is to be held while the device is used."""


def synthesizer_factory(
    model: Mapping[str, str] | None, factory: SynthesizerFactory | None = None
) -> SynthesizerFactory | None:
    """What makes a worker's synthesizer: `factory`, or else one of this model and of no other."""
    return factory or (partial(exact_synthesizer, model=model) if model else None)


def exact_synthesizer(config: Any, model: Mapping[str, str]) -> Callable[[Batch], Batch]:
    """The `Synthesizer` of this model, as `t2ipal.diffusion.identity` tells it, and of no other.

    Raises:
        ValueError: the files on this machine are of another one.
    """
    from t2ipal.diffusion.identity import pinned
    from t2ipal.diffusion.synthesizer import Synthesizer

    return Synthesizer(pinned(config, model))


class Meter:
    """Is told what a shard worker does; this one keeps nothing of it."""

    def spent(self, step: str, seconds: float) -> None:
        """Wall time of a step: `draw`, `encode`, `store` or `features`."""

    def committed(self, marker: Marker, rows: Sequence[Sample]) -> None:
        """A shard was made and stored here."""


class ShardWorker:
    """Loads a synthesizer once, then turns shard plans into stored shards."""

    def __init__(
        self,
        store: Store,
        config: Any,
        factory: SynthesizerFactory | None = None,
        num_threads: int | None = None,
        after_commit: AfterCommitFactory | None = None,
        meter: Meter | None = None,
    ):
        """Loads the pipeline, and what `after_commit` wants.

        Args:
            store: of the run.
            config: the SynthesisConfig.
            factory: makes the synthesizer; None is `t2ipal.diffusion.synthesizer.Synthesizer`.
            num_threads: of torch; None leaves what is set.
            after_commit: makes what is done with the images of each shard; None: nothing.
            meter: is told what is done; None: nobody is.
        """
        if factory is None:
            from t2ipal.diffusion.synthesizer import Synthesizer

            factory = Synthesizer
        self.store = store
        self.config = config
        self.meter = meter or Meter()
        self.synthesizer = factory(config)
        # A synthesizer may tell what its images depend on beside the config.
        self.versions = {"pillow": PIL.__version__, **getattr(self.synthesizer, "versions", {})}
        self._device = threading.Lock()
        self._encoder = ThreadPoolExecutor(1, "encoder")
        self._after_commit = after_commit and after_commit(store, self._device)
        torch = sys.modules.get("torch")  # a synthesizer without torch needs no threads of it
        if torch is not None and num_threads is not None:
            torch.set_num_threads(num_threads)

    def __call__(self, plan: ShardPlan) -> Marker:
        """Makes and commits one shard, then does what is wanted after it; returns its marker.

        While one micro-batch is encoded, the device works on the next. Two threads may call at
        once: the device makes one's images while the other encodes its last ones and uploads.
        A shard that is there already, another driver's or from before a crash, is left as it is.
        """
        if (there := read_marker(self.store, plan.shard, plan.identity())) is not None:
            return there
        samples, made, seconds = plan.samples, list[Any](), {"draw": 0.0, "encode": 0.0}
        encoding: Future[Made] | None = None
        # For the whole shard: two by turns would end, and leave the device idle, at the same time.
        with self._device:
            for batch in self._batches(plan):
                with self._step("draw", seconds):
                    output = self._generate(samples[batch.start : batch.stop], plan.attempt)
                # No more than one waits: images would pile up where the device is faster.
                made += encoding.result() if encoding else []
                encoding = self._encoder.submit(
                    self._timed_encode, seconds, plan, samples, batch, output
                )
        made += encoding.result() if encoding else []
        rows, images = zip(*made, strict=True)
        image_format = self.config.image_format
        with self._step("store"):
            marker = commit_shard(
                self.store, plan.shard, plan.identity(), rows, images, seconds.pop("draw"),
                image_format, self.versions, seconds,
            )  # fmt: skip
        self.meter.committed(marker, rows)
        # Where someone else was first with other bytes, theirs count: nothing is done with ours.
        if self._after_commit is not None and describes(marker, rows, images, image_format):
            shown = {row.key: data for row, data in zip(rows, images) if data is not None}
            with self._step("features"):
                self._after_commit(plan.shard, shown)
        return marker

    def remake(self, plan: ShardPlan, index: int) -> tuple[Sample, bytes | None]:
        """One sample of a plan again, its row and its bytes, made within its own micro-batch."""
        batch = next(batch for batch in self._batches(plan) if index in batch)
        samples = plan.samples
        output = self._generate(samples[batch.start : batch.stop], plan.attempt)
        return self._encode(plan, samples, batch, output)[index - batch.start]

    @contextmanager
    def _step(self, name: str, seconds: dict[str, float] | None = None) -> Iterator[None]:
        """Tells the meter how long the `with` block took, and adds it to `seconds`."""
        started = time.monotonic()
        yield
        spent = time.monotonic() - started
        self.meter.spent(name, spent)
        if seconds is not None:
            seconds[name] += spent

    def _timed_encode(self, seconds: dict[str, float], *batch: Any) -> Made:
        with self._step("encode", seconds):
            return self._encode(*batch)

    def _batches(self, plan: ShardPlan) -> list[range]:
        """Positions of each micro-batch.

        They depend on the plan alone: in half precision, a sample's neighbors show in its last
        bits.
        """
        count, size = plan.num_samples, self.config.batch_size
        return [range(start, min(start + size, count)) for start in range(0, count, size)]

    def _encode(
        self,
        plan: ShardPlan,
        samples: Sequence[SampleRequest],
        batch: range,
        output: Mapping[str, Any],
    ) -> Made:
        """Rows and encoded images of one micro-batch."""
        return [
            self._row(plan, index, samples[index], output, index - batch.start) for index in batch
        ]

    def _generate(self, samples: Sequence[SampleRequest], attempt: int) -> Mapping[str, Any]:
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
        self,
        plan: ShardPlan,
        index: int,
        sample: SampleRequest,
        batch: Mapping[str, Any],
        position: int,
    ) -> tuple[Sample, bytes | None]:
        image, seed = batch["image"][position], batch["seed"][position]
        ok = batch["status"][position] == "ok"
        row = Sample(
            key=f"{plan.shard}-{index:05d}",
            caption_id=sample.caption_id,
            caption=sample.caption,
            labels=sample.labels,
            k=sample.k,
            attempt=plan.attempt,
            seed=None if seed is None else int(seed),
            status="ok" if ok else "failed",
            reason="" if ok else str(batch["reason"][position]) or "no reason given",
            settings=plan.settings_fingerprint,
            width=image.shape[1] if ok else 0,
            height=image.shape[0] if ok else 0,
        )
        config = self.config
        look = config.image_format, config.jpeg_quality, config.jpeg_subsampling
        return row, encode_image(image, *look) if ok else None


def in_process(
    store: Store,
    config: Any,
    execution: ExecutionConfig,
    factory: SynthesizerFactory | None,
    after_commit: AfterCommitFactory | None,
    plans: Sequence[ShardPlan],
) -> Iterator[Marker]:
    """Makes every plan's shard here, without Ray; yields each one's marker."""
    worker = ShardWorker(store, config, factory, after_commit=after_commit)
    for plan in plans:
        yield worker(plan)
        halt_if_asked()


Workers = Callable[..., Iterator[Marker | ShardCounts]]
"""`in_process`, or `t2ipal.engine.pool.on_ray`, which takes the same."""
