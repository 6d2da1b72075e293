"""Shards: what comes back, what is stored byte for byte, and what is refused."""

import dataclasses
import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_shard import PLAN, all_samples, some_images, some_rows

from t2ipal.config import to_dict
from t2ipal.store import (
    Marker,
    Part,
    Store,
    commit_shard,
    committed_shards,
    describes,
    json_bytes,
    read_encoded_images,
    read_images,
    read_samples,
    read_shard_samples,
    shards,
)
from t2ipal.store.images import ENDINGS
from t2ipal.store.tables import SIDECAR_SCHEMA, sample_of, sidecar_samples


def test_a_shard_comes_back_as_it_was_committed(store):
    rows, images = some_rows(), some_images()
    marker = commit_shard(store, "00000", PLAN, rows, images)
    assert (marker.num_rows, marker.num_failed) == (3, 1)
    assert committed_shards(store) == [marker]
    assert all_samples(store) == rows
    back = list(read_images(store, "00000"))
    assert [row for row, _ in back] == [rows[0], rows[2]]
    for (_, image), data in zip(back, [images[0], images[2]], strict=True):
        assert np.array_equal(image, np.array(Image.open(io.BytesIO(data))))


def test_the_tar_depends_on_its_content_alone(tmp_path):
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    for store in (one, two):
        commit_shard(store, "00000", PLAN, some_rows(), some_images())
    assert {key: one.read(key) for key in one.list()} == {key: two.read(key) for key in two.list()}
    with tarfile.open(tmp_path / "one/images/00000.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [
        "00000-00000.jpg",
        "00000-00000.json",
        "00000-00000.txt",
        "00000-00002.jpg",
        "00000-00002.json",
        "00000-00002.txt",
    ]
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")


@pytest.mark.parametrize(("image_format", "ending"), ENDINGS.items())
def test_webdataset_and_open_clip_read_the_tar_as_it_is(tmp_path, image_format, ending):
    import webdataset

    images = some_images(image_format=image_format)
    commit_shard(Store(tmp_path), "00000", PLAN, some_rows(), images, 0.0, image_format)
    stored = list(read_encoded_images(Store(tmp_path), "00000"))
    assert stored == [(some_rows()[i], images[i]) for i in (0, 2)]
    url = str(tmp_path / "images/00000.tar")
    samples = list(webdataset.WebDataset(url, shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in samples] == ["00000-00000", "00000-00002"]
    assert samples[1]["json"] == to_dict(some_rows()[2])
    assert samples[1]["txt"] == "a “dog” number 2"
    assert samples[1][ending].size == (24, 16)
    # What open_clip's training script does with a shard (open_clip_train.data.get_wds_dataset).
    pairs = list(
        webdataset.WebDataset(url, shardshuffle=False)
        .select(lambda sample: "txt" in sample and {*sample} & {"png", "jpg", "jpeg", "webp"})
        .decode("pilrgb")
        .rename(image="jpg;png;jpeg;webp", text="txt")
        .to_tuple("image", "text")
    )
    assert [text for _, text in pairs] == ["a “dog” number 0", "a “dog” number 2"]
    for (seen, _), (_, image) in zip(pairs, read_images(Store(tmp_path), "00000"), strict=True):
        assert np.array_equal(np.array(seen), image)


def test_a_tar_without_marker_does_not_exist(store):
    commit_shard(store, "00000", PLAN, some_rows(), some_images())
    store.write("images/00001.tar", b"half")
    store.write("images/00001.parquet", b"half")
    assert [marker.shard for marker in committed_shards(store)] == ["00000"]
    assert len(all_samples(store)) == 3
    with pytest.raises(FileNotFoundError):
        next(read_images(store, "00001"))


def test_committing_twice_changes_nothing_and_another_plan_is_refused(store):
    marker = commit_shard(store, "00000", PLAN, some_rows(), some_images())
    assert commit_shard(store, "00000", PLAN, some_rows(), some_images()) == marker
    tar = store.read("images/00000.tar")
    message = "Shard 00000 .* another plan. Differences: num_samples: 3 there, 2 here"
    with pytest.raises(ValueError, match=message):
        commit_shard(store, "00000", {**PLAN, "num_samples": 2}, some_rows(2), some_images(2))
    assert store.read("images/00000.tar") == tar


def test_who_commits_a_shard_too_late_looks_at_what_is_there(store, monkeypatch):
    rows, images = some_rows(), some_images()
    marker = commit_shard(store, "00000", PLAN, rows, images, seconds=1.0)
    monkeypatch.setattr(store, "exists", lambda key: False)  # as just before the other's marker
    assert commit_shard(store, "00000", PLAN, rows, images, seconds=2.0) == marker


def test_of_two_writers_with_other_bytes_one_shard_is_left(store, monkeypatch):
    """As two kinds of device make them: the later one finds that it wrote over the first one's."""
    monkeypatch.setattr(shards, "MAX_PAUSE_S", 0.0)
    rows, images = some_rows(), some_images()
    first = commit_shard(store, "00000", PLAN, rows, images)
    monkeypatch.setattr(store, "exists", lambda key: False)
    others = [images[2], None, images[0]]
    second = commit_shard(store, "00000", PLAN, rows, others)
    assert second.tar != first.tar
    assert committed_shards(store) == [second]
    assert [data for _, data in read_encoded_images(store, "00000")] == [images[2], images[0]]


def test_writers_with_other_bytes_at_the_same_time(store, monkeypatch):
    monkeypatch.setattr(shards, "MAX_PAUSE_S", 0.2)
    monkeypatch.setattr(store, "exists", lambda key: False)
    rows, images = some_rows(), some_images()
    each = [images, [images[2], None, images[0]]] * 3
    with ThreadPoolExecutor(len(each)) as pool:
        list(pool.map(lambda made: commit_shard(store, "00000", PLAN, rows, made), each))
    stored = [data for _, data in read_encoded_images(store, "00000")]
    assert stored in ([images[0], images[2]], [images[2], images[0]])
    assert len(all_samples(store)) == len(rows)


def test_a_shard_that_others_keep_writing_over(store, monkeypatch):
    monkeypatch.setattr(shards, "MAX_PAUSE_S", 0.0)
    rows, images = some_rows(), some_images()
    commit_shard(store, "00000", PLAN, rows, images)
    monkeypatch.setattr(store, "exists", lambda key: False)
    write = store.write
    monkeypatch.setattr(
        store, "write", lambda key, data: write(key, b"?" if key.endswith("tar") else data)
    )
    with pytest.raises(ValueError, match=r"images/00000.tar .* not what its marker describes"):
        commit_shard(store, "00000", PLAN, rows, [images[2], None, images[0]])


def test_whose_images_a_marker_describes(tmp_path):
    rows, images = some_rows(), some_images()
    marker = commit_shard(Store(tmp_path), "00000", PLAN, rows, images)
    assert describes(marker, rows, images, "jpeg")
    assert not describes(marker, rows, [images[2], None, images[0]], "jpeg")
    assert not describes(marker, rows, some_images(image_format="png"), "png")


def test_damage_is_found_and_named(tmp_path):
    store = Store(tmp_path)
    commit_shard(store, "00000", PLAN, some_rows(), some_images())
    sidecar = store.read("images/00000.parquet")
    store.write("images/00000.parquet", sidecar[:-1] + b"?")
    with pytest.raises(
        ValueError, match=r"images/00000.parquet in .* not what its marker describes"
    ):
        all_samples(store)
    store.write("images/00000.tar", store.read("images/00000.tar")[:600])
    with pytest.raises(ValueError, match=r"images/00000.tar in .* not what its marker describes"):
        next(read_images(store, "00000"))
    for damaged in (b"{", b"[]", b"{}", b"\xff", store.read("images/00000.json")[:-20]):
        store.write("images/00000.json", damaged)
        with pytest.raises(ValueError, match=r"images/00000.json in .* is damaged. Remove it"):
            committed_shards(store)


def test_an_empty_store_has_no_rows(store):
    assert all_samples(store) == []


MARKER = Marker(
    shard="00003-retry1",
    plan={"settings": "0123456789abcdef", "num_samples": 3, "first": "id 1/0", "attempt": 1},
    plan_hash="fedcba9876543210",
    num_rows=3,
    num_failed=1,
    tar=Part("aa", 10240),
    sidecar=Part("bb", 2048),
    seconds=1.25,
    versions={"torch": "2.11", "pillow": "11"},
    other_seconds={"encode": 0.5, "store": 0.25},
)
STORED = b"""{
 "num_failed": 1,
 "num_rows": 3,
 "other_seconds": {
  "encode": 0.5,
  "store": 0.25
 },
 "plan": {
  "attempt": 1,
  "first": "id 1/0",
  "num_samples": 3,
  "settings": "0123456789abcdef"
 },
 "plan_hash": "fedcba9876543210",
 "seconds": 1.25,
 "shard": "00003-retry1",
 "sidecar": {
  "sha256": "bb",
  "size_bytes": 2048
 },
 "tar": {
  "sha256": "aa",
  "size_bytes": 10240
 },
 "versions": {
  "pillow": "11",
  "torch": "2.11"
 }
}
"""


def test_a_marker_is_stored_as_it_always_was(tmp_path):
    store = Store(tmp_path)
    assert json_bytes(to_dict(MARKER)) == STORED
    store.write("images/00003-retry1.json", STORED)
    assert committed_shards(store) == [MARKER]


def test_what_a_later_version_adds_to_a_marker_is_left_alone(tmp_path):
    store, marker = Store(tmp_path), json.loads(STORED)
    tar = {**marker["tar"], "md5": "cc"}
    later = {**marker, "tar": tar, "host": "a", "watts": [1]}
    store.write("images/00003-retry1.json", json_bytes(later))
    assert committed_shards(store) == [MARKER]
    del later["versions"], later["other_seconds"]  # the oldest have none
    store.write("images/00003-retry1.json", json_bytes(later))
    assert committed_shards(store) == [dataclasses.replace(MARKER, versions={}, other_seconds=None)]


@pytest.mark.parametrize(
    "changes",
    [
        {"shard": "00004"},
        {"shard": 3},
        {"plan": "abc"},
        {"plan_hash": None},
        {"num_rows": "3"},
        {"num_rows": True},
        {"num_failed": 4},
        {"num_failed": -1},
        {"tar": "aa"},
        {"tar": {"sha256": "aa"}},
        {"sidecar": {"size_bytes": 2048}},
        {"seconds": "1"},
        {"other_seconds": {"encode": "1"}},
    ],
)
def test_a_marker_that_cannot_be_one_is_refused(tmp_path, changes):
    store = Store(tmp_path)
    store.write("images/00003-retry1.json", json_bytes({**json.loads(STORED), **changes}))
    message = r"images/00003-retry1.json in .* is damaged. Remove it and run jobs/synthesize.py aga"
    with pytest.raises(ValueError, match=message):
        committed_shards(store)


@pytest.mark.parametrize("name", sorted({*json.loads(STORED)} - {"versions", "other_seconds"}))
def test_a_marker_that_lacks_a_field_is_refused(tmp_path, name):
    store, marker = Store(tmp_path), json.loads(STORED)
    del marker[name]
    store.write("images/00003-retry1.json", json_bytes(marker))
    with pytest.raises(ValueError, match=r"images/00003-retry1.json in .* is damaged"):
        committed_shards(store)


def test_a_row_is_stored_as_it_always_was(tmp_path):
    """In the tar and in the sidecar, whose columns are a contract."""
    store = Store(tmp_path)
    commit_shard(store, "00000", PLAN, some_rows(), some_images())
    with tarfile.open(tmp_path / "images/00000.tar") as tar:
        row = tar.extractfile("00000-00000.json").read()
    assert row == (
        b'{\n "attempt": 0,\n "caption": "a \\u201cdog\\u201d number 0",\n "caption_id": "0",\n'
        b' "height": 16,\n "k": 0,\n "key": "00000-00000",\n "labels": [\n  0,\n  7\n ],\n'
        b' "reason": "",\n "seed": 18446744073709551615,\n "settings": "abc",\n "status": "ok",\n'
        b' "width": 24\n}\n'
    )
    table = pq.read_table(tmp_path / "images/00000.parquet")
    assert table.schema == SIDECAR_SCHEMA
    assert table.to_pylist() == [to_dict(row) for row in some_rows()]


def test_what_a_later_version_adds_to_a_row_is_left_alone():
    row, *_ = some_rows()
    values = {**to_dict(row), "watts": 3.5}
    assert sample_of(values) == row
    del values["attempt"]  # from before there were attempts
    assert sample_of(values) == row
    with pytest.raises(TypeError, match="caption_id"):
        sample_of({name: value for name, value in values.items() if name != "caption_id"})
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist([to_dict(row)], SIDECAR_SCHEMA)
    pq.write_table(table.append_column("watts", pa.array([3.5])), sink)
    assert sidecar_samples(sink.getvalue().to_pybytes()) == [row]


def test_of_a_sample_that_was_tried_again_the_last_attempt_counts(tmp_path):
    store, (first, failed, last) = Store(tmp_path), some_rows()
    commit_shard(store, "00000", PLAN, [first, failed, last], some_images())
    again = dataclasses.replace(failed, key="00000-retry1-00000", attempt=1)
    commit_shard(store, "00000-retry1", PLAN, [again], [None])
    assert all_samples(store) == [again, first, last]
    markers = committed_shards(store)
    assert list(read_samples(store, markers[1:])) == [first, failed, last]
    assert [read_shard_samples(store, marker) for marker in markers] == [
        [again],
        [first, failed, last],
    ]
    assert [row.is_image for row in all_samples(store)] == [False, True, True]
