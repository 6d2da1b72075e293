"""Looks at a run one after the other, of which each reads only what is new."""

import pytest
from small_shard import some_images, some_rows

from t2ipal.store import (
    RunWatch,
    Section,
    Store,
    commit_shard,
    first_images,
    run_status,
    write_section,
)


def commit(store, shard, failed=(1,)):
    commit_shard(store, shard, {"of": shard}, some_rows(3, failed), some_images(3, failed), 1.0)


class Watched(Store):
    """Notes what is read."""

    reads: list[str]

    def read(self, key):
        self.reads.append(key)
        return super().read(key)


@pytest.fixture
def watch(store):
    write_section(store, 0, Section(0, 3, 0, 9, 0, 1, "x"))
    commit(store, "00000")
    watched = Watched(store.uri, store.endpoint_url)
    watched.reads = []
    return RunWatch(watched)


def test_only_what_is_new_is_read(watch, store):
    status = run_status(watch)
    assert (status.num_images, status.failed_by_reason) == (2, {"black image": 1})
    watch.store.reads.clear()
    assert run_status(watch) == status and watch.store.reads == []
    commit(store, "00001")
    status = run_status(watch)
    assert (status.num_images, status.failed_by_reason) == (4, {"black image": 2})
    assert sorted(watch.store.reads) == ["images/00001.json", "images/00001.parquet"]
    assert status == run_status(store)


def test_a_shard_that_is_made_anew_is_read_again(watch, store):
    run_status(watch)
    store.delete("images/00000.json")
    assert run_status(watch).num_shards_done == 0
    commit(store, "00000", failed=())
    status = run_status(watch)
    assert (status.num_images, status.failed_by_reason) == (3, {})


def test_a_run_that_grows(watch, store):
    run_status(watch)
    write_section(store, 1, Section(3, 1, 0, 3, 1, 1, ""))
    assert run_status(watch).num_samples == 12


def test_first_images(watch, store):
    watch.look()
    (marker,) = watch.markers
    images = [data for data in some_images() if data is not None]
    assert [data for _, data in first_images(store, marker, 5)] == images
    assert [row.caption_id for row, _ in first_images(store, marker, 5)] == ["0", "2"]
    assert len(first_images(store, marker, 1)) == 1
    store.write("images/00000.tar", b"no tar")
    assert first_images(store, marker, 5) == []
