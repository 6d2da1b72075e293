"""How far a run is, from its store alone: while it goes on, or after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite

from t2ipal.config import require
from t2ipal.store.objects import Store
from t2ipal.store.records import Marker
from t2ipal.store.shards import count_samples, is_retry
from t2ipal.store.watching import RunWatch

RATE_WINDOW_S = 600.0
"""The rate is that of the last ten minutes of work at least."""
RATE_WINDOW_SHARDS = 3
"""And of as long as so many shards of one worker take: several workers may finish all at once."""
PAUSE_S, PAUSE_SHARDS = 60.0, 3
"""A run stood still where no shard came for longer than both: so long, and so many shards take."""


@dataclass(frozen=True)
class RunStatus:
    """What is done, what is left, and what it costs."""

    num_samples: int
    """Samples that were asked for so far."""
    num_images: int
    num_failed: int
    failed_by_reason: dict[str, int]
    num_shards: int
    """Shards planned for those samples."""
    num_shards_done: int
    size_bytes: int
    """Of all finished shards: images and sidecars."""
    images_per_second: float | None
    """Samples finished a second over the last ten minutes of work, without pauses; None before the
    first shard."""
    seconds_left: float | None
    """At that rate; 0 when all is done."""
    worker_hours: float
    """Hours that workers' devices took to make what is there; not loading, idling, or what was
    lost."""
    seconds_by_step: dict[str, float]
    """That workers spent in all: to `draw` on their devices, to `encode` and to `store`; steps of
    one worker overlap, and shards of older versions know the first alone."""
    cost: float | None
    """Of the GPUs for those hours alone, at the price that was given."""
    cost_in_the_end: float | None
    """Of the whole run, if the rest takes as long a sample."""


def run_status(
    store: Store | RunWatch, price_per_gpu_hour: float | None = None, gpus_per_worker: float = 1.0
) -> RunStatus:
    """Reads sections and markers, and the sidecars only where samples failed.

    Args:
        store: home of the run; or a watch over it, by whom looks again and again.
        price_per_gpu_hour: in any currency.
        gpus_per_worker: that the run had; its store does not tell.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: a number is negative.
    """
    require_price(price_per_gpu_hour, gpus_per_worker)
    price, gpus = price_per_gpu_hour, gpus_per_worker
    watch = store if isinstance(store, RunWatch) else RunWatch(store)
    watch.look()
    sections, markers = watch.sections, watch.markers
    if not sections:
        raise FileNotFoundError(f"No run in {watch.store.uri}. Run jobs/synthesize.py first.")
    num_done, num_failed = count_samples(markers)
    num_samples = sum(section.num_samples for section in sections)
    rate = _samples_per_second(markers, watch.times)
    seconds = _seconds_by_step(markers)
    hours = seconds["draw"] / 3600
    left = num_samples - num_done
    cost = None if price is None else hours * gpus * price
    return RunStatus(
        num_samples=num_samples,
        num_images=num_done - num_failed,
        num_failed=num_failed,
        failed_by_reason=watch.failed_by_reason(),
        num_shards=sum(section.num_shards for section in sections),
        num_shards_done=sum(not is_retry(marker.shard) for marker in markers),
        size_bytes=sum(m.tar.size_bytes + m.sidecar.size_bytes for m in markers),
        images_per_second=rate,
        seconds_left=0.0 if left == 0 else left / rate if rate else None,
        worker_hours=hours,
        seconds_by_step=seconds,
        cost=cost,
        cost_in_the_end=cost * num_samples / num_done if cost is not None and num_done else None,
    )


def _seconds_by_step(markers: Sequence[Marker]) -> dict[str, float]:
    seconds = {"draw": 0.0}
    for marker in markers:
        for name, spent in {"draw": marker.seconds, **(marker.other_seconds or {})}.items():
            seconds[name] = seconds.get(name, 0.0) + spent
    return seconds


def require_price(price: float | None, gpus: float) -> None:
    """Raises ValueError unless these can be a price of a GPU's hour and a worker's GPUs."""
    require(price is None or price >= 0, f"price_per_gpu_hour must be >= 0, got {price}.")
    finite = price is None or isfinite(price)
    require(finite, f"price_per_gpu_hour must be finite, got {price}.")
    require(gpus >= 0 and isfinite(gpus), f"gpus_per_worker must be finite and >= 0, got {gpus}.")


def _samples_per_second(markers: Sequence[Marker], times: Mapping[str, float]) -> float | None:
    """Samples of the last shards, over the time in which the run was at work on them.

    That is the time since the shard before; after a pause, and for the first of all, what a shard
    takes: the seconds of its device, or the usual gap where encoding or the store takes longer.
    """
    shards = sorted((times[m.shard], m.seconds, m.num_rows) for m in markers)
    gaps = [inf, *(after[0] - before[0] for before, after in pairwise(shards))]
    # The lower quartile: most gaps of a run that is stopped every night may be pauses.
    usual_gap = sorted(gaps)[len(gaps) // 4] if len(gaps) > 4 else 0.0
    num_samples, worked_s, window_s = 0, 0.0, RATE_WINDOW_S
    for gap, (_, seconds, num_rows) in zip(reversed(gaps), reversed(shards)):
        shard_s = max(seconds, usual_gap)
        paused = gap > max(PAUSE_S, PAUSE_SHARDS * shard_s)
        num_samples += num_rows
        worked_s += shard_s if paused else gap
        window_s = max(window_s, RATE_WINDOW_SHARDS * shard_s)
        if worked_s >= window_s:
            break
    return num_samples / worked_s if worked_s else None


def describe_status(status: RunStatus, gpus_per_worker: float = 1.0) -> str:
    """The status as a few lines to read."""
    done = status.num_images + status.num_failed
    lines = [
        f"images  {status.num_images:,} of {status.num_samples:,}"
        f" ({done / status.num_samples:.1%} done), {status.num_failed:,} failed",
        *(f"        {count:,} x {reason}" for reason, count in status.failed_by_reason.items()),
        f"shards  {status.num_shards_done:,} of {status.num_shards:,},"
        f" {status.size_bytes / 2**20:,.1f} MiB",
    ]
    rate = status.images_per_second
    lines.append("rate    " + ("not known yet" if rate is None else f"{rate:,.1f} images/s"))
    if status.seconds_left is not None:
        lines[-1] += (
            f", {describe_duration(status.seconds_left)} left" if status.seconds_left else ", done"
        )
    lines.append(f"work    {status.worker_hours:,.2f} worker hours of making images")
    if status.cost is not None:
        lines[-1] += f", cost {status.cost:,.2f}"
        if status.cost_in_the_end is not None and status.seconds_left != 0:
            lines[-1] += f" of {status.cost_in_the_end:,.2f} in the end"
        lines.append(
            f"        at {gpus_per_worker:g} GPUs a worker; without loading, idle time, lost shards"
        )
    steps = status.seconds_by_step.items()
    lines.append("steps   " + ", ".join(f"{name} {spent:,.1f} s" for name, spent in steps))
    return "\n".join(lines)


def describe_duration(seconds: float) -> str:
    """Hours, minutes and seconds to read: 1:02:03."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
