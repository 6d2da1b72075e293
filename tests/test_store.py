import io
import json
import os
import pickle
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from t2ipal.images import ENDINGS, decode_image, encode_image
from t2ipal.store import (
    Section,
    Store,
    buckets,
    commit_shard,
    committed_shards,
    describes,
    open_run,
    read_arrays,
    read_bytes,
    read_encoded_images,
    read_images,
    read_manifest,
    read_parquet_columns,
    read_rows,
    read_sections,
    read_stored_captions,
    write_arrays,
    write_manifest,
    write_rejected,
    write_section,
    write_section_captions,
)

PLAN = {"settings": "abc", "num_samples": 3}


@dataclass(frozen=True)
class Kept:
    caption_id: str
    text: str
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Rejected:
    caption_id: str
    text: str
    reason: str


@pytest.fixture(params=["folder", "bucket"])
def store(request, tmp_path):
    if request.param == "folder":
        return Store(tmp_path / "run")
    url = request.getfixturevalue("s3_server")
    return Store(f"s3://runs/{tmp_path.name}", endpoint_url=url)


def some_rows(num_rows=3, failed=(1,)):
    return [
        {
            "key": f"00000-{i:05d}",
            "caption_id": f"{i}",
            "caption": f"a “dog” number {i}",
            "labels": [i, 7],
            "k": 0,
            "seed": 2**64 - 1 - i,
            "status": "failed" if i in failed else "ok",
            "reason": "black image" if i in failed else "",
            "settings": "abc",
            "width": 0 if i in failed else 24,
            "height": 0 if i in failed else 16,
        }
        for i in range(num_rows)
    ]


def some_images(num_rows=3, failed=(1,), image_format="jpeg"):
    images = np.random.default_rng(0).integers(0, 255, (num_rows, 16, 24, 3), dtype=np.uint8)
    encoded = [encode_image(image, image_format, 95, "4:2:0") for image in images]
    return [None if i in failed else data for i, data in enumerate(encoded)]


def test_objects_are_written_read_and_listed(store):
    assert not store.exists("a/b.json")
    assert store.list() == []
    store.write("a/b.json", b"one")
    store.write("a/b.json", b"two")
    store.write("a/bc", b"")
    store.write("d", b"x" * 100_000)
    assert store.read("a/b.json") == b"two"
    assert store.exists("a/b.json")
    assert not store.exists("a")
    assert store.list() == ["a/b.json", "a/bc", "d"]
    assert store.list("a/b.") == ["a/b.json"]
    assert store.list("a/") == ["a/b.json", "a/bc"]
    assert store.list("none/") == []
    with pytest.raises(FileNotFoundError, match=r"No (file|object) .*missing"):
        store.read("missing")


def test_times_of_objects(store):
    before = time.time()
    store.write("a/1", b"x")
    store.write("b", b"y")
    times = store.times("a/")
    assert list(times) == ["a/1"]
    # A server's clock may count whole seconds.
    assert before - 2 < times["a/1"] < time.time() + 2


def test_write_if_absent_leaves_what_is_there(store):
    assert store.write_if_absent("marker", b"first")
    assert not store.write_if_absent("marker", b"second")
    assert store.read("marker") == b"first"
    assert store.list() == ["marker"]


def test_one_of_many_racing_writers_wins(tmp_path):
    store = Store(tmp_path)
    barrier = threading.Barrier(16)
    winners = []

    def race(index):
        barrier.wait()
        if store.write_if_absent("marker", str(index).encode()):
            winners.append(index)

    threads = [threading.Thread(target=race, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert store.read("marker") == str(winners[0]).encode()
    assert os.listdir(tmp_path) == ["marker"]


def without_conditions(monkeypatch, store, status=None, code=""):
    """Lets a bucket's server overlook the condition of a PUT, or refuse it."""
    client = store._backend._client
    put = client.put_object

    def put_object(IfNoneMatch=None, **request):
        if IfNoneMatch and status:
            reply = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
            raise client.exceptions.ClientError(reply, "PutObject")
        return put(**request)

    monkeypatch.setattr(client, "put_object", put_object)


def warnings_in(caplog):
    return [record.message for record in caplog.records if record.name.startswith("t2ipal")]


@pytest.mark.parametrize(
    ("status", "code"),
    [(None, ""), (501, "NotImplemented"), (400, "InvalidArgument"), (400, "InvalidRequest")],
)
def test_a_server_without_conditional_writes(
    tmp_path, monkeypatch, s3_server, caplog, status, code
):
    store = Store(f"s3://runs/{tmp_path.name}", s3_server)
    without_conditions(monkeypatch, store, status, code)
    assert not store.conditional_writes()
    assert store.list() == []
    assert open_run(store, {"seed": 1})
    assert len(warnings_in(caplog)) == 1
    assert f"{store.uri} has no conditional writes" in warnings_in(caplog)[0]
    marker = commit_shard(store, "00000", PLAN, some_rows(), some_images())
    assert commit_shard(store, "00000", PLAN, some_rows(), some_images()) == marker
    assert not open_run(store, {"seed": 1})
    with pytest.raises(ValueError, match=r"holds another run. Differences: seed: 1 there, 2 here"):
        open_run(store, {"seed": 2})
    assert not store.write_if_absent("config.json", b"{}")
    assert json.loads(store.read("config.json")) == {"seed": 1}


def test_a_store_with_conditional_writes_needs_no_warning(store, caplog):
    assert store.conditional_writes()
    open_run(store, {"seed": 1})
    assert not warnings_in(caplog)
    assert store.list() == ["config.json"]


def test_a_worker_learns_from_the_first_refusal(tmp_path, monkeypatch, s3_server):
    store = Store(f"s3://runs/{tmp_path.name}", s3_server)
    without_conditions(monkeypatch, store, 501, "NotImplemented")
    assert store.write_if_absent("marker", b"first")
    assert not store.write_if_absent("marker", b"second")
    assert store.read("marker") == b"first"
    assert not store.conditional_writes()


def test_a_put_that_fails_for_another_reason_is_no_refusal(tmp_path, monkeypatch, s3_server):
    store = Store(f"s3://runs/{tmp_path.name}", s3_server)
    without_conditions(monkeypatch, store, 400, "IncompleteBody")
    for attempt in (store.conditional_writes, lambda: store.write_if_absent("a", b"")):
        with pytest.raises(OSError, match=r"did not take the request .* \(IncompleteBody\)"):
            attempt()


@pytest.mark.parametrize(("num_conflicts", "created"), [(2, True), (99, False)])
def test_a_conflict_with_another_writer_is_tried_again(
    tmp_path, monkeypatch, s3_server, num_conflicts, created
):
    """As long as the object is not there: the other writer may fail."""
    store = Store(f"s3://runs/{tmp_path.name}", s3_server)
    client, left = store._backend._client, [num_conflicts]
    put = client.put_object

    def put_object(**request):
        left[0] -= 1
        if left[0] >= 0:
            reply = {"ResponseMetadata": {"HTTPStatusCode": 409}, "Error": {"Code": "Conflict"}}
            raise client.exceptions.ClientError(reply, "PutObject")
        return put(**request)

    monkeypatch.setattr(buckets, "_pause", lambda attempt: None)
    monkeypatch.setattr(client, "put_object", put_object)
    if not created:
        with pytest.raises(OSError, match=r"did not take the request .* \(Conflict\)"):
            store.write_if_absent("marker", b"mine")
        return
    assert store.write_if_absent("marker", b"mine")
    left[0] = 1
    assert not store.write_if_absent("marker", b"other")
    assert store.read("marker") == b"mine"


def test_the_probe_may_lack_the_right_to_delete(tmp_path, monkeypatch, s3_server):
    store = Store(f"s3://runs/{tmp_path.name}", s3_server)
    client = store._backend._client

    def refuse(**_):
        reply = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise client.exceptions.ClientError(reply, "DeleteObject")

    monkeypatch.setattr(client, "delete_object", refuse)
    assert store.conditional_writes()
    assert store.list() == []  # what it left is no object of the run


@pytest.mark.parametrize("was_completed", [True, False])
def test_a_completed_upload_is_told_from_one_that_is_gone(
    tmp_path, monkeypatch, s3_server, was_completed
):
    store = Store(f"s3://runs/{tmp_path.name}", s3_server)
    store.write("large", b"old")
    monkeypatch.setattr(buckets, "MULTIPART_BYTES", 1)
    client = store._backend._client
    complete = client.complete_multipart_upload

    def complete_multipart_upload(**request):
        if was_completed:
            complete(**request)  # its reply is lost, and the server says this to the next request:
        reply = {"Error": {"Code": "NoSuchUpload"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
        raise client.exceptions.ClientError(reply, "CompleteMultipartUpload")

    monkeypatch.setattr(client, "complete_multipart_upload", complete_multipart_upload)
    if was_completed:
        store.write("large", b"new")
    else:
        with pytest.raises(OSError, match=r"did not take the request .*large \(NoSuchUpload\)"):
            store.write("large", b"new")
    assert store.read("large") == (b"new" if was_completed else b"old")
    assert "Uploads" not in client.list_multipart_uploads(Bucket="runs")


def test_a_store_can_be_pickled(store):
    store.write("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"1"


def test_reading_a_file_by_its_address(tmp_path, monkeypatch, s3_server):
    (tmp_path / "captions.txt").write_bytes(b"a dog")
    monkeypatch.chdir(tmp_path)
    assert read_bytes("captions.txt") == b"a dog"
    assert read_bytes(tmp_path / "captions.txt") == b"a dog"
    assert read_bytes(f"file://{tmp_path}/captions.txt") == b"a dog"
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    Store("s3://runs/read").write("captions.txt", b"a cat")
    assert read_bytes("s3://runs/read/captions.txt") == b"a cat"
    with pytest.raises(FileNotFoundError, match=r"No file .*nothing.json"):
        read_bytes("nothing.json")
    with pytest.raises(FileNotFoundError, match=r"is a folder, expected a file"):
        read_bytes(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No object s3://runs/read/none"):
        read_bytes("s3://runs/read/none")


def test_addresses_that_are_no_store(s3_server):
    with pytest.raises(ValueError, match=r"local path or s3://..., got 'gs://b/c'"):
        Store("gs://b/c")
    with pytest.raises(ValueError, match=r"s3://bucket/prefix, got 's3:///c'"):
        Store("s3:///c")
    with pytest.raises(FileNotFoundError, match=r"No bucket 'absent'. Create it first"):
        Store("s3://absent/run", s3_server).write("a", b"")


def test_an_unreachable_server_is_an_error_without_secrets(s3_server, monkeypatch):
    store = Store("s3://runs/x", "http://127.0.0.1:9")
    # Ten retries take minutes; one shows the message.
    import boto3

    make = boto3.client

    def impatient(name, config, **options):
        from botocore.config import Config

        return make(name, config=config.merge(Config(retries={"max_attempts": 0})), **options)

    monkeypatch.setattr(boto3, "client", impatient)
    with pytest.raises(OSError, match=r"Cannot reach s3://runs/x/a") as raised:
        store.read("a")
    assert "very-secret" not in str(raised.value)


def test_no_credentials_is_a_clear_error(s3_server, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    import boto3

    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with pytest.raises(PermissionError, match=r"No credentials for s3://runs/x/a"):
        Store("s3://runs/x", s3_server).read("a")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(PermissionError, match=r"Cannot write to .*file"):
        Store(tmp_path / "file").write("a", b"")
    with pytest.raises(PermissionError, match=r"Cannot write to .*file.* Choose another folder"):
        Store(tmp_path / "file" / "run").write_if_absent("config.json", b"")


def test_a_failed_write_leaves_the_old_object(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write("a", b"old")

    def disk_full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match=r"No space left"):
        store.write("a", b"new")
    assert store.read("a") == b"old"
    assert os.listdir(tmp_path) == ["a"]


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


@pytest.mark.parametrize("image_format", ENDINGS)
def test_an_image_has_the_same_bytes_every_time(image_format):
    rng = np.random.default_rng(1)
    small = Image.fromarray(rng.integers(0, 255, (5, 7, 3), dtype=np.uint8))
    image = np.array(small.resize((96, 64), Image.Resampling.BICUBIC))
    data = encode_image(image, image_format, 90, "4:2:0")
    assert Image.open(io.BytesIO(data)).format == image_format.upper()
    with ThreadPoolExecutor(4) as pool:  # as two threads of a worker do
        copies = pool.map(lambda _: encode_image(image, image_format, 90, "4:2:0"), range(8))
    assert {*copies} == {data}
    difference = np.abs(decode_image(data).astype(int) - image)
    if image_format == "png":
        assert difference.max() == 0
        assert encode_image(image, "png", 1, "4:2:0") == data  # it has no quality
    else:
        assert 0 < difference.mean() < 3
        assert len(encode_image(image, image_format, 50, "4:2:0")) < len(data)


def test_colors_of_a_jpeg():
    """Thin lines in color come out better the less their color is subsampled."""
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[:, ::2, 0] = image[::2, :, 2] = 255

    def error(subsampling):
        data = encode_image(image, "jpeg", 95, subsampling)
        return np.abs(decode_image(data).astype(int) - image).mean()

    assert error("4:2:0") > error("4:2:2") > 2 * error("4:4:4")


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
    others = [images[2], None, images[0]]
    with pytest.raises(ValueError, match=r"images/00000.tar .* not what its marker describes"):
        commit_shard(store, "00000", PLAN, rows, others)


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
    assert open_run(store, {"seed": 2})  # nothing was made yet
    assert json.loads(store.read("config.json")) == {"seed": 2}
    commit_shard(store, "00000", PLAN, some_rows(), some_images())
    with pytest.raises(ValueError, match=r"holds another run. Differences: seed: 2 there, 3 here"):
        open_run(store, {"seed": 3})
    store.write("config.json", b"{")
    with pytest.raises(ValueError, match=r"config.json in .* is damaged"):
        open_run(store, {"seed": 2})


def test_captions_keep_their_labels_and_reasons(store):
    with pytest.raises(FileNotFoundError, match=r"No captions in .* Run jobs/synthesize.py first"):
        read_stored_captions(store)
    kept = [Kept("1", "a dog", (3,)), Kept("2", "a dog on a boat", (1, 3))]
    key = write_section_captions(store, 0, kept)
    write_rejected(store, [Rejected("0", "a house", "no class")])
    write_section(store, 0, Section(0, 1, 0, 2, 0, 1, key))
    assert read_stored_captions(store).to_pylist() == [
        {"caption_id": "1", "caption": "a dog", "labels": [3], "status": "kept", "reason": ""},
        {
            "caption_id": "2",
            "caption": "a dog on a boat",
            "labels": [1, 3],
            "status": "kept",
            "reason": "",
        },
    ]
    assert read_stored_captions(store, "rejected").to_pylist()[0]["reason"] == "no class"
    assert read_stored_captions(store, "all").num_rows == 3
    with pytest.raises(ValueError, match=r"Did you mean 'kept'"):
        read_stored_captions(store, "keep")
    more = write_section_captions(store, 1, [Kept("9", "a cat", (2,))])
    write_section(store, 1, Section(1, 1, 2, 1, 0, 1, more))
    assert read_stored_captions(store)["caption_id"].to_pylist() == ["1", "2", "9"]
    write_section(store, 1, Section(1, 1, 2, 1, 0, 7, more))  # the first writer stays
    assert [section.num_k for section in read_sections(store)] == [1, 1]
    store.write("sections/00001.json", b"{}")
    with pytest.raises(ValueError, match=r"sections/00001.json in .* is damaged"):
        read_sections(store)


def test_parquet_columns(tmp_path):
    path = tmp_path / "captions.parquet"
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"], "url": ["x", "y"]}), path)
    assert read_parquet_columns(path, ["text", "id"]) == {"text": ["a", "b"], "id": [1, 2]}
    with pytest.raises(ValueError, match=r"captions.parquet: Unknown column 'txt'.*mean 'text'"):
        read_parquet_columns(path, ["txt"])
    path.write_bytes(Path(path).read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"captions.parquet: .*not a parquet file"):
        read_parquet_columns(path, ["text"])


def test_arrays(store):
    arrays = {
        "global_features": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float16),
        "labels": np.array([[1, 0], [0, 1], [1, 1]], dtype=np.int64).T,
    }
    write_arrays(store, "features/00000.safetensors", arrays)
    back = read_arrays(store, "features/00000.safetensors")
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert np.array_equal(back[name], array)
    with pytest.raises(FileNotFoundError):
        read_arrays(store, "features/00001.safetensors")
    store.write("features/00000.safetensors", store.read("features/00000.safetensors")[:-3])
    with pytest.raises(ValueError, match=r"not a complete safetensors file"):
        read_arrays(store, "features/00000.safetensors")
