"""Shards, their manifest and the settings of their run: what comes back, and what is refused."""

import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from small_shard import PLAN, some_images, some_rows

from t2ipal.images import ENDINGS
from t2ipal.store import (
    Store,
    commit_shard,
    committed_shards,
    describes,
    open_run,
    read_encoded_images,
    read_images,
    read_manifest,
    read_rows,
    shards,
    write_manifest,
)


def test_a_shard_comes_back_as_it_was_committed(store):
    rows, images = some_rows(), some_images()
    marker = commit_shard(store, "00000", PLAN, rows, images)
    assert (marker["num_rows"], marker["num_failed"]) == (3, 1)
    assert committed_shards(store) == [marker]
    assert read_rows(store).to_pylist() == rows
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
    assert samples[1]["json"] == some_rows()[2]
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
    assert [marker["shard"] for marker in committed_shards(store)] == ["00000"]
    assert read_rows(store).num_rows == 3
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
    assert second["tar"] != first["tar"]
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
    assert read_rows(store).num_rows == len(rows)


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
        read_rows(store)
    store.write("images/00000.tar", store.read("images/00000.tar")[:600])
    with pytest.raises(ValueError, match=r"images/00000.tar in .* not what its marker describes"):
        next(read_images(store, "00000"))
    for damaged in (b"{", b"[]", b"{}", b"\xff", store.read("images/00000.json")[:-20]):
        store.write("images/00000.json", damaged)
        with pytest.raises(ValueError, match=r"images/00000.json in .* is damaged. Remove it"):
            committed_shards(store)


def test_an_empty_store_has_no_rows(store):
    assert read_rows(store).num_rows == 0
    assert "caption_id" in read_rows(store).column_names


def test_manifest(store):
    with pytest.raises(
        FileNotFoundError, match=r"No manifest in .*\. Run jobs/synthesize.py first"
    ):
        read_manifest(store)
    commit_shard(store, "00000", PLAN, some_rows(), some_images())
    manifest = write_manifest(store, ["dog", "cat"], {"seed": 1})
    assert read_manifest(store) == manifest
    assert (manifest["num_images"], manifest["num_failed"]) == (2, 1)
    assert manifest["class_names"] == ["dog", "cat"]
    assert [shard["shard"] for shard in manifest["shards"]] == ["00000"]


def test_a_run_folder_keeps_its_settings(store):
    assert open_run(store, {"seed": 1, "size": (2, 3)})
    assert not open_run(store, {"seed": 1, "size": (2, 3)})
    refusal = r"holds another run. Differences: seed: 1 there, 3 here.*or the same settings\."
    begin_anew = " .* nothing is lost by removing config.json and sections/ there to begin anew\\."
    with pytest.raises(ValueError, match=f"{refusal}{begin_anew}$"):
        open_run(store, {"seed": 3, "size": (2, 3)})  # who wrote them may be at work
    assert json.loads(store.read("config.json")) == {"seed": 1, "size": [2, 3]}
    commit_shard(store, "00000", PLAN, some_rows(), some_images())
    with pytest.raises(ValueError, match=f"{refusal}$"):
        open_run(store, {"seed": 3, "size": (2, 3)})
    store.write("config.json", b"{")
    with pytest.raises(ValueError, match=r"config.json in .* is damaged"):
        open_run(store, {"seed": 1})
