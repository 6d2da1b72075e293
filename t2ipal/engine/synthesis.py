"""Synthesis of a whole run: plans, workers, progress, manifest.

Owns the order of things. What an image looks like is decided by `t2ipal.synthesis`, what is
stored by `t2ipal.engine.plans` and `t2ipal.store`, where it runs by `t2ipal.engine.pool`.
"""

import collections
import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from t2ipal.captions import FilterResult, Vocabulary
from t2ipal.config import fingerprint, require, to_dict
from t2ipal.engine.plans import ShardPlan, ShardWorker, SynthesizerFactory, plan_shards
from t2ipal.engine.pool import RunConfig, work_on_pool
from t2ipal.store import (
    Store,
    check_plan,
    committed_shards,
    open_run,
    read_rows,
    write_captions,
    write_manifest,
)

Counts = Generator[dict[str, Any], None, None]
"""`num_rows` and `num_failed` of one finished shard after another."""


@dataclass(frozen=True)
class SynthesisSummary:
    """What a run has in its store, and what this call took."""

    num_captions: int
    num_images: int
    """Images in the store, those of earlier calls included."""
    num_failed: int
    """Samples without an image, those of earlier calls included."""
    num_shards: int
    num_shards_skipped: int
    """Shards that were there before this call."""
    seconds: float
    """Wall time of this call, loading the pipeline included."""
    images_per_second: float
    """Images that this call made, over its seconds."""


@dataclass(frozen=True)
class SynthesisRequest:
    """What is to be synthesized: it alone decides what the store will hold."""

    config: Any
    """A `t2ipal.synthesis.SynthesisConfig`."""
    vocabulary: Vocabulary
    captions: FilterResult
    """The kept ones are drawn, in their order; the rejected ones are stored with their reasons."""
    images_per_shard: int = 128
    """Images of one shard: small enough to lose on a crash, large enough to keep objects few."""

    def __post_init__(self):
        require(
            len(self.captions.kept) > 0,
            "No caption names a class of the vocabulary: nothing to draw.",
        )
        counts = collections.Counter(caption.caption_id for caption in self.captions.kept)
        twice = [name for name, count in counts.items() if count > 1]
        require(not twice, f"Caption ids must be unique, got {twice[:3]} more than once.")

    def settings(self) -> dict[str, Any]:
        """The plain values of config.json."""
        kept = [[c.caption_id, c.text, list(c.labels)] for c in self.captions.kept]
        return {
            "synthesis": to_dict(self.config),
            "vocabulary": self.vocabulary.name,
            "class_names": list(self.vocabulary.class_names),
            "prompt_names": list(self.vocabulary.prompt_names),
            "num_captions": len(kept),
            "captions": fingerprint(kept),
            "images_per_shard": self.images_per_shard,
        }


def synthesize(
    store: Store,
    request: SynthesisRequest,
    run: RunConfig | None = None,
    *,
    factory: SynthesizerFactory | None = None,
    progress: bool = False,
) -> SynthesisSummary:
    """Makes and stores every image of the request on Ray's workers; finished shards are skipped.

    Args:
        store: home of the run; the workers must reach it too.
        request: what to make.
        run: where to make it.
        factory: makes a worker's synthesizer; None is `t2ipal.synthesis.Synthesizer`.
        progress: show a bar with images, rate, failures and time left.

    Raises:
        ValueError: the store holds another run.
        RuntimeError: more samples failed than `max_failed_fraction` allows, or a worker could not
            load its pipeline.
    """
    run = run or RunConfig()

    def on_ray(plans: list[ShardPlan]) -> Counts:
        return work_on_pool(plans, store, request.config, run, factory)

    return _synthesize(store, request, run, on_ray, progress)


def synthesize_locally(
    store: Store,
    request: SynthesisRequest,
    run: RunConfig | None = None,
    *,
    factory: SynthesizerFactory | None = None,
    progress: bool = False,
) -> SynthesisSummary:
    """As `synthesize`, in this process and without Ray; stores the same bytes."""

    def here(plans: list[ShardPlan]) -> Counts:
        worker = ShardWorker(store, request.config, factory)
        for plan in plans:
            yield worker(plan)

    return _synthesize(store, request, run or RunConfig(), here, progress)


def _synthesize(
    store: Store,
    request: SynthesisRequest,
    run: RunConfig,
    work: Callable[[list[ShardPlan]], Counts],
    progress: bool,
) -> SynthesisSummary:
    start = time.monotonic()
    settings, kept = request.settings(), request.captions.kept
    plans = plan_shards(kept, settings["synthesis"], request.images_per_shard)
    if open_run(store, settings) or not store.exists("captions.parquet"):
        write_captions(store, kept, request.captions.rejected)
    finished = {marker["shard"]: marker for marker in committed_shards(store)}
    pending = []
    for plan in plans:
        if plan.shard in finished:
            check_plan(store, finished[plan.shard], plan.identity())
        else:
            pending.append(plan)

    tally = _Tally(store, sum(len(plan.samples) for plan in plans), run.max_failed_fraction)
    tally.add(finished.values())
    num_before = tally.num_images
    if pending:
        bar = tqdm(
            total=tally.num_samples,
            initial=tally.num_done,
            unit="image",
            mininterval=0.5 if sys.stderr.isatty() else 10,  # a log file wants few lines
            disable=not progress,
        )
        # Closed also when the tally stops the run, so that the workers stop with it.
        with bar, contextlib.closing(work(pending)) as markers:
            for marker in markers:
                tally.add([marker])
                bar.set_postfix(failed=tally.num_failed, refresh=False)
                bar.update(marker["num_rows"])
    write_manifest(store, request.vocabulary.class_names, settings)
    seconds = time.monotonic() - start
    return SynthesisSummary(
        num_captions=len(kept),
        num_images=tally.num_images,
        num_failed=tally.num_failed,
        num_shards=len(plans),
        num_shards_skipped=len(plans) - len(pending),
        seconds=round(seconds, 3),
        images_per_second=round((tally.num_images - num_before) / seconds, 3),
    )


class _Tally:
    """Counts samples and stops the run as soon as too many of them have failed."""

    def __init__(self, store: Store, num_samples: int, max_failed_fraction: float):
        self.store = store
        self.num_samples = num_samples
        self.max_failed_fraction = max_failed_fraction
        self.num_done = self.num_failed = 0

    @property
    def num_images(self) -> int:
        return self.num_done - self.num_failed

    def add(self, markers: Iterable[Mapping[str, Any]]) -> None:
        for marker in markers:
            self.num_done += marker["num_rows"]
            self.num_failed += marker["num_failed"]
        if self.num_failed > self.max_failed_fraction * self.num_samples:
            reasons = collections.Counter(read_rows(self.store)["reason"].to_pylist())
            del reasons[""]
            reason, times = reasons.most_common(1)[0]
            raise RuntimeError(
                f"{self.num_failed} of {self.num_samples} samples failed, more than "
                f"max_failed_fraction {self.max_failed_fraction} allows. "
                f"Most often ({times} times): {reason}"
            )
