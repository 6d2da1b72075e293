"""What a run's status says of rates, times and costs."""

import os

import pytest

from t2ipal.store import (
    Marker,
    Part,
    Sample,
    Section,
    Store,
    commit_shard,
    describe_status,
    run_status,
    write_section,
)
from t2ipal.store.status import _samples_per_second

NIGHT_S = 8 * 3600


def row(key, failed=False):
    status, reason = ("failed", "black image") if failed else ("ok", "")
    return Sample(key, key, "a dog", (0,), 0, 0, 1, status, reason, "s", 8, 8)


def commit(folder, shard, rows, finished, seconds):
    images = [b"jpeg" if row.is_image else None for row in rows]
    commit_shard(Store(folder), shard, {"of": shard}, rows, images, seconds)
    os.utime(folder / f"images/{shard}.json", (finished, finished))


def test_status_of_a_run_that_goes_on(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(FileNotFoundError, match="No run in"):
        run_status(store)
    write_section(store, 0, Section(0, 4, 0, 20, 0, 2, "x"))
    status = run_status(store, 2.0)
    assert (status.num_samples, status.num_images, status.num_shards) == (40, 0, 4)
    assert status.images_per_second is status.seconds_left is status.cost_in_the_end is None

    # Ten samples; after a pause ten at 1000 s, ten at 1020 s, of which two failed.
    for shard, finished in (("00000", 0), ("00001", 1000), ("00002", 1020)):
        rows = [row(f"{shard}-{n}", failed=shard == "00002" and n < 2) for n in range(10)]
        commit(tmp_path, shard, rows, finished, seconds=20)
    status = run_status(store, 120.0)
    assert (status.num_images, status.num_failed, status.num_shards_done) == (28, 2, 3)
    assert status.failed_by_reason == {"black image": 2}
    assert status.images_per_second == pytest.approx(0.5)
    assert status.seconds_left == pytest.approx(20)
    assert status.worker_hours == pytest.approx(1 / 60)
    assert status.cost == pytest.approx(2) and status.cost_in_the_end == pytest.approx(8 / 3)
    assert status.size_bytes > 0
    assert run_status(store, 120.0, gpus_per_worker=0.5).cost == pytest.approx(1)

    commit(tmp_path, "00002-retry1", [row("00002-0"), row("00002-1", True)], 1030, 1)
    status = run_status(store)
    assert (status.num_images, status.num_failed, status.num_shards_done) == (29, 1, 3)
    assert status.failed_by_reason == {"black image": 1} and status.cost is None
    with pytest.raises(ValueError, match="price_per_gpu_hour must be >= 0, got -1"):
        run_status(store, -1)
    with pytest.raises(ValueError, match="gpus_per_worker must be finite and >= 0, got -1"):
        run_status(store, 2.0, -1)


def test_only_sidecars_of_failed_samples_are_read(tmp_path):
    """A look at a run of thousands of shards would otherwise take minutes."""
    store, read = Store(tmp_path), []
    write_section(store, 0, Section(0, 9, 0, 18, 0, 1, "x"))
    for shard in range(9):
        rows = [row(f"{shard}-{n}", failed=n < 1 and shard in (3, 7)) for n in range(2)]
        commit(tmp_path, f"{shard:05d}", rows, shard, 1)
    commit(tmp_path, "00003-retry1", [row("3-0", failed=True)], 9, 1)
    commit(tmp_path, "00003-retry2", [row("3-0", failed=True)], 9, 1)
    commit(tmp_path, "00007-retry1", [row("7-0")], 9, 1)

    class Watched(Store):
        def read(self, key):
            read.append(key)
            return super().read(key)

    status = run_status(Watched(tmp_path))
    assert (status.num_failed, status.failed_by_reason) == (1, {"black image": 1})
    assert [key for key in read if key.endswith(".parquet")] == ["images/00003-retry2.parquet"]


def test_the_seconds_of_each_step(tmp_path):
    """Shards of older versions know those of the device alone."""
    write_section(Store(tmp_path), 0, Section(0, 2, 0, 4, 0, 2, "x"))
    commit(tmp_path, "00000", [row("0-0")], 0, 1.5)
    steps = {"encode": 0.5}
    commit_shard(Store(tmp_path), "00001", {}, [row("1-0")], [b"x"], 2.0, other_seconds=steps)
    status = run_status(Store(tmp_path))
    assert status.seconds_by_step == {"draw": 3.5, "encode": 0.5, "store": pytest.approx(0, abs=9)}
    assert "steps   draw 3.5 s, encode 0.5 s, store " in describe_status(status)


def rate(ends, seconds, num_rows=100):
    """Of shards that were finished at these times, in any order."""
    names = [f"{number:05d}" for number in range(len(ends))]
    part = Part("", 0)
    markers = [Marker(name, {}, "", num_rows, 0, part, part, seconds) for name in names]
    return _samples_per_second(markers, dict(zip(names, ends)))


def steps(count, gap, start=0.0):
    return [start + (number + 1) * gap for number in range(count)]


def test_the_rate_of_steady_work():
    assert rate([], 20) is None and rate([5.0], 0.0) is None
    for count in (1, 2, 9, 200):
        assert rate(steps(count, 20), seconds=20) == pytest.approx(5)
        # A store, or an encoder, that is slower than the device.
        if count > 4:
            assert rate(steps(count, 90), seconds=1) == pytest.approx(100 / 90, rel=0.2)
    # Shards that take longer than the window; and a run whose pace has changed.
    assert rate(steps(2, 3000), seconds=3000) == pytest.approx(1 / 30)
    slow = steps(20, 100)
    assert rate(slow + steps(40, 20, slow[-1]), seconds=20) == pytest.approx(5)


@pytest.mark.parametrize("num_after", [1, 2, 5, 60])
@pytest.mark.parametrize("num_before", [1, 2, 5, 60])
@pytest.mark.parametrize("pause", [600, NIGHT_S])
def test_a_pause_leaves_the_rate_as_it_was(num_before, num_after, pause):
    """As soon as the first shard after it is there; the one that was in the works was lost."""
    before = steps(num_before, 20)
    after = steps(num_after, 20, before[-1] + 11 + pause)
    assert rate(before + after, seconds=20) == pytest.approx(5)
    # Two pauses, and shards of an hour.
    before = steps(num_before, 3600)
    after = steps(num_after, 3600, before[-1] + NIGHT_S)
    last = steps(1, 3600, after[-1] + NIGHT_S)
    assert rate(before + after + last, seconds=3600) == pytest.approx(1 / 36)


@pytest.mark.parametrize("num_after", [1, 2, 7])
def test_workers_that_finish_at_the_same_time(num_after):
    """Eight of them, after a pause too: the seven others' shards did not come in no time."""
    bursts = steps(5, 400)
    bursts += steps(num_after, 400, bursts[-1] + NIGHT_S)
    ends = [end + worker / 10 for end in bursts for worker in range(8)]
    assert rate(ends, seconds=400) == pytest.approx(8 * 100 / 400, rel=0.05)
    assert rate(steps(50, 50), seconds=400) == pytest.approx(2)  # and those who take turns


def test_a_slow_store_pauses_too():
    ends = steps(20, 90)
    assert rate(ends + steps(3, 90, ends[-1] + NIGHT_S), seconds=1) == pytest.approx(100 / 90)


def test_short_gaps_are_no_pauses():
    """Those of a worker's start, and of a shard with more to do."""
    ends = [*steps(20, 2), *steps(20, 2, 40 + 50)]
    assert rate(ends, seconds=2) == pytest.approx(4000 / (40 + 40 + 50), rel=0.02)
