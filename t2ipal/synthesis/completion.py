"""Completing a run: what is missing of what was asked for, retries, failures, manifest."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from t2ipal.store import (
    Manifest,
    Marker,
    RunSettings,
    ShardCounts,
    Store,
    check_plan,
    committed_shards,
    count_samples,
    end_old_uploads,
    failure_reasons,
    finished_shards,
    is_retry,
    missing_shards,
    read_sections,
    write_manifest,
)
from t2ipal.synthesis.growth import plan_retries, plan_run, totals
from t2ipal.synthesis.plans import ShardPlan
from t2ipal.synthesis.request import ExecutionConfig

Work = Callable[[list[ShardPlan]], Any]
"""Makes and commits the shards of some plans: a generator of `ShardCounts`."""


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
    """Images that came during this call, over its seconds."""


def complete_run(
    store: Store,
    settings: RunSettings,
    execution: ExecutionConfig,
    work: Work,
    progress: bool,
    start: float,
) -> SynthesisSummary:
    """Makes all shards that the run was asked for and lacks; then writes the manifest.

    Args:
        store: home of the run.
        settings: of the run.
        execution: when to give up, and whether to try failed samples again.
        work: makes the shards.
        progress: show a bar.
        start: of the call, as `time.monotonic` has it.

    Raises:
        ValueError: a finished shard was made from another plan.
        RuntimeError: more samples failed than `max_failed_fraction` allows, or as `work` does.
    """
    end_old_uploads(store)
    plans = plan_run(store, settings)
    finished = {marker.shard: marker for marker in committed_shards(store)}
    pending = []
    for plan in plans:
        if plan.shard in finished:
            check_plan(store, finished[plan.shard], plan.identity())
        else:
            pending.append(plan)
    num_skipped = len(plans) - len(pending)
    retries = plan_retries(store, plans, finished) if execution.retry_failed else []
    pending = retries + pending  # what failed before tells first whether the cause is mended

    tally = Tally(
        store,
        num_samples=sum(plan.num_samples for plan in plans),
        num_waiting=sum(plan.num_samples for plan in retries),
        max_failed_fraction=execution.max_failed_fraction,
    )
    tally.add(finished.values())
    tally.check()
    num_before = tally.num_images
    if pending:
        bar = tqdm(
            total=sum(plan.num_samples for plan in pending) + tally.num_done,
            initial=tally.num_done,
            unit="image",
            mininterval=0.5 if sys.stderr.isatty() else 10,  # a log file wants few lines
            disable=not progress,
        )
        # Closed also when the tally stops the run, so that the workers stop with it.
        with bar, contextlib.closing(work(pending)) as markers:
            for marker in markers:
                tally.add([marker])
                if is_retry(marker.shard):
                    tally.num_waiting -= marker.num_rows
                tally.check()
                bar.set_postfix(failed=tally.num_failed, refresh=False)
                bar.update(marker.num_rows)
    manifest = finish(store, settings)
    seconds = time.monotonic() - start
    return SynthesisSummary(
        num_captions=manifest.settings.num_captions,
        num_images=tally.num_images,
        num_failed=tally.num_failed,
        num_shards=len(plans),
        num_shards_skipped=num_skipped,
        seconds=round(seconds, 3),
        images_per_second=round((tally.num_images - num_before) / seconds, 3),
    )


def finish(store: Store, settings: RunSettings) -> Manifest:
    """Writes and returns the manifest of all that the run holds, by whomever.

    Once more where another driver with a larger request finished meanwhile: its manifest may be the
    one that was written over. One that is still at work will write its own.
    """
    while True:
        sections = read_sections(store)
        manifest = write_manifest(store, totals(store, settings))
        told = sections, [shard.shard for shard in manifest.shards]
        there = read_sections(store), finished_shards(store)
        if told == there or missing_shards(*there):
            return manifest


class Tally:
    """Counts samples and stops the run as soon as too many of them have failed for good."""

    def __init__(
        self, store: Store, num_samples: int, num_waiting: int, max_failed_fraction: float
    ):
        self.store = store
        self.num_samples = num_samples
        self.num_waiting = num_waiting
        """Failed samples that are yet to be tried again."""
        self.max_failed_fraction = max_failed_fraction
        self.num_done = self.num_failed = 0

    @property
    def num_images(self) -> int:
        """Samples with an image."""
        return self.num_done - self.num_failed

    def add(self, markers: Iterable[ShardCounts | Marker]) -> None:
        """Counts finished shards."""
        num_samples, num_failed = count_samples(markers)
        self.num_done += num_samples
        self.num_failed += num_failed

    def check(self) -> None:
        """Raises RuntimeError, with the most frequent reason, where too many samples failed."""
        num_failed = self.num_failed - self.num_waiting
        if num_failed > self.max_failed_fraction * self.num_samples:
            reasons = failure_reasons(self.store, committed_shards(self.store))
            reason, times = next(iter(reasons.items()), ("made again meanwhile", num_failed))
            raise RuntimeError(
                f"{num_failed} of {self.num_samples} samples failed, more than "
                f"max_failed_fraction {self.max_failed_fraction} allows. Remove the cause, then "
                f"add --retry-failed to make them again. Most often ({times} times): {reason}"
            )
