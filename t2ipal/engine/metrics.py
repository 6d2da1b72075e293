"""Numbers of a run's work at Ray's metrics ports, for Prometheus; cluster/grafana.json draws them.

Ray puts `ray_` before each name. Tags are few and have few values: each set of them is a series.
What must outlive the cluster is in the run's store (`t2ipal.store.status`), not here.
"""

import contextlib
import time
from collections import Counter as Counts
from collections.abc import Iterator, Sequence

from ray.util.metrics import Counter, Gauge

from t2ipal.store import Marker, Sample
from t2ipal.synthesis.worker import Meter

MAX_REASONS = 20
"""Kinds of failures that a worker tells apart."""
OTHER = "other"


class WorkerMeter(Meter):
    """What one worker of a pool did, and that it lives."""

    def __init__(self, stage: str):
        self._tags = {"stage": stage}
        self._reasons: set[str] = set()
        self._seconds = Counter(
            "t2ipal_stage_seconds_total",
            "Wall time of a worker in a step of a stage; steps of one worker may overlap.",
            ("stage", "step"),
        )
        self._images = Counter("t2ipal_images_total", "Images made and stored.", ("stage",))
        self._failures = Counter(
            "t2ipal_failures_total", "Samples of which no image came.", ("stage", "reason")
        )
        self._bytes = Counter(
            "t2ipal_stored_bytes_total", "Images and sidecars that were stored.", ("stage",)
        )
        self._workers = Gauge("t2ipal_workers", "Workers of a pool that live.", ("stage",))
        self._workers.set(1, self._tags)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Counts the time inside the `with` block, also where the block fails."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.spent(name, time.monotonic() - started)

    def spent(self, step: str, seconds: float) -> None:
        """As the base has it."""
        if seconds > 0:  # Ray refuses a count of nothing
            self._seconds.inc(seconds, {**self._tags, "step": step})

    def committed(self, marker: Marker, rows: Sequence[Sample]) -> None:
        """As the base has it."""
        self._bytes.inc(marker.tar.size_bytes + marker.sidecar.size_bytes, self._tags)
        if num_images := sum(row.is_image for row in rows):
            self._images.inc(num_images, self._tags)
        kinds = Counts(self._kind(row.reason) for row in rows if not row.is_image)
        for kind, count in kinds.items():
            self._failures.inc(count, {**self._tags, "reason": kind})

    def _kind(self, reason: str) -> str:
        """A failure's reason without what differs from one sample to the next: numbers, paths."""
        kind = reason.partition(":")[0].strip()
        known = kind in self._reasons or len(self._reasons) < MAX_REASONS
        if not known or not kind or len(kind) > 40 or any(letter.isdigit() for letter in kind):
            return OTHER
        self._reasons.add(kind)
        return kind


class Queue:
    """How many items of a stage are not done yet, as its driver knows."""

    def __init__(self, stage: str, num_items: int):
        self._gauge = Gauge(
            "t2ipal_pending_items", "Shards, or other items, that are not done yet.", ("stage",)
        )
        self._tags, self._left = {"stage": stage}, num_items
        self._gauge.set(num_items, self._tags)

    def done(self) -> None:
        """One more is done."""
        self._left -= 1
        self._gauge.set(self._left, self._tags)
