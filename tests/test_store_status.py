"""What a run's status says of rates, times and costs."""

import os

import pytest

from t2ipal.store import Section, Store, commit_shard, run_status, write_section


def row(key, failed=False):
    return {
        "key": key, "caption_id": key, "caption": "a dog", "labels": [0], "k": 0, "seed": 1,
        "status": "failed" if failed else "ok", "reason": "black image" if failed else "",
        "settings": "s", "width": 8, "height": 8,
    }  # fmt: skip


def commit(folder, shard, rows, finished, seconds):
    images = [b"jpeg" if row["status"] == "ok" else None for row in rows]
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

    # Long ago; then ten samples at 1000 s, ten at 1020 s, of which two failed.
    for shard, finished in (("00000", 0), ("00001", 1000), ("00002", 1020)):
        rows = [row(f"{shard}-{n}", failed=shard == "00002" and n < 2) for n in range(10)]
        commit(tmp_path, shard, rows, finished, seconds=1800)
    status = run_status(store, 2.0)
    assert (status.num_images, status.num_failed, status.num_shards_done) == (28, 2, 3)
    assert status.failed_by_reason == {"black image": 2}
    assert status.images_per_second == pytest.approx(0.5)
    assert status.seconds_left == pytest.approx(20)
    assert status.worker_hours == pytest.approx(1.5)
    assert status.cost == pytest.approx(3) and status.cost_in_the_end == pytest.approx(4)
    assert status.size_bytes > 0
    assert run_status(store, 2.0, gpus_per_worker=0.5).cost == pytest.approx(1.5)

    commit(tmp_path, "00002-retry1", [row("00002-0"), row("00002-1", True)], 1030, 1)
    status = run_status(store)
    assert (status.num_images, status.num_failed, status.num_shards_done) == (29, 1, 3)
    assert status.failed_by_reason == {"black image": 1} and status.cost is None
    with pytest.raises(ValueError, match="price_per_gpu_hour must be >= 0, got -1"):
        run_status(store, -1)
    with pytest.raises(ValueError, match="gpus_per_worker must be finite and >= 0, got -1"):
        run_status(store, 2.0, -1)
