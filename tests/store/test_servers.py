"""What the store promises, on a folder, on moto, and on object stores as people run them."""

import threading
import traceback
import uuid
from dataclasses import dataclass

import boto3
import numpy as np
import pytest
from conftest import use_credentials
from small_shard import all_samples, some_settings

from benchmarks.chaos.proxy import FaultyProxy
from benchmarks.chaos.servers import ObjectServer
from t2ipal.store import (
    Sample,
    Store,
    buckets,
    commit_shard,
    committed_shards,
    open_run,
    read_encoded_images,
)
from t2ipal.store.images import encode_image

UNICODE_KEYS = ["ü ä/+%é&'\"<>.json", "日本/😀", "a=b;c,d:@!$()*~#?[]", "e\u0301 is two, é is one"]
MIB = 2**20
PLAN = {"settings": "abc", "num_samples": 2}


@dataclass(frozen=True)
class Place:
    name: str
    root: str
    server: ObjectServer | None

    def store(self, url=None):
        """Makes an empty store, over a proxy where its address is given."""
        server_url = self.server.url if self.server else None
        return Store(f"{self.root}/{uuid.uuid4().hex}", url or server_url)


@pytest.fixture(scope="module", params=["folder", "moto", "swift", "ceph"])
def place(request, tmp_path_factory):
    if request.param == "folder":
        yield Place("folder", str(tmp_path_factory.mktemp("store")), None)
        return
    if request.param == "moto":
        server = ObjectServer(request.getfixturevalue("s3_server"), "key", "very-secret")
    else:
        server = request.getfixturevalue(request.param)
    with pytest.MonkeyPatch.context() as patch:
        use_credentials(patch, server.access_key, server.secret_key)
        boto3.client("s3", endpoint_url=server.url).create_bucket(Bucket="servers")
        yield Place(request.param, "s3://servers", server)


@pytest.fixture
def server_place(place):
    if place.server is None:
        pytest.skip("a folder has no server")
    return place


class ScriptedProxy(FaultyProxy):
    """Makes the faults that a test wants: one after another, for requests of one method."""

    def __init__(self, server_url, method, faults):
        super().__init__(server_url, rate=0, seed=0)
        self.method, self.faults = method, list(faults)

    def draw(self, method, body):
        return (self.faults.pop(0) if method == self.method and self.faults else None), 0.0


def small_parts(monkeypatch):
    """Real servers want parts of 5 MiB at least, save the last one."""
    monkeypatch.setattr(buckets, "MULTIPART_BYTES", 6 * MIB)
    monkeypatch.setattr(buckets, "PART_BYTES", 5 * MIB)
    return np.random.default_rng(0).bytes(11 * MIB)


def uploads_of(place):
    client = boto3.client("s3", endpoint_url=place.server.url)
    return client.list_multipart_uploads(Bucket="servers").get("Uploads", [])


def a_shard():
    images = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    rows = [
        Sample(f"00000-{i:05d}", str(i), "a “dog”", (3,), 0, 0, i, "ok", "", "abc", 8, 8)
        for i in range(2)
    ]
    return rows, [encode_image(image, "jpeg", 95, "4:2:0") for image in images]


def test_objects_are_written_read_and_listed_page_by_page(place, monkeypatch):
    monkeypatch.setattr(buckets, "PAGE_KEYS", 5)
    store, keys = place.store(), [f"images/{i:05d}.json" for i in range(12)]
    assert store.list() == []
    for key in keys:
        store.write(key, b"old")
    store.write(keys[0], b"new")
    store.write("empty", b"")
    assert store.read(keys[0]) == b"new"
    assert store.read(keys[1]) == b"old"
    assert store.read("empty") == b""
    assert store.list() == ["empty", *keys]
    assert list(store.times("images/0000")) == keys[:10]
    assert store.exists("empty")
    assert not store.exists("images")
    with pytest.raises(FileNotFoundError, match=r"No (file|object) .*missing"):
        store.read("missing")


def test_keys_in_every_script(place):
    store = place.store()
    for key in UNICODE_KEYS:
        store.write(key, key.encode())
    assert store.list() == sorted(UNICODE_KEYS)
    assert [store.read(key) for key in UNICODE_KEYS] == [key.encode() for key in UNICODE_KEYS]


def test_the_probe_says_what_a_server_can_and_leaves_nothing(place):
    store = place.store()
    assert store.conditional_writes()
    assert store.conditional_writes()
    assert store.list() == []
    if place.server:
        client = boto3.client("s3", endpoint_url=place.server.url)
        prefix = store.uri.removeprefix("s3://servers/")
        assert client.list_objects_v2(Bucket="servers", Prefix=prefix)["KeyCount"] == 0


def test_the_region_is_what_the_server_names(place):
    expected = {"moto": ["us-east-1"], "folder": [""]}
    assert place.store().region() in expected.get(place.name, ["", "default", "us-east-1"])


def test_racing_writers_of_the_same_bytes(place):
    store = place.store()
    barrier, won = threading.Barrier(16), []

    def race():
        barrier.wait()
        won.append(store.write_if_absent("marker", b"same"))

    threads = [threading.Thread(target=race) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 16
    # Swift looks first and writes later: several win, and only equal bytes make that harmless.
    assert won.count(True) >= 1 if place.name == "swift" else won.count(True) == 1
    assert store.read("marker") == b"same"
    assert store.list() == ["marker"]
    assert not store.write_if_absent("marker", b"other")
    assert store.read("marker") == b"same"


def test_a_large_object_goes_in_parts(place, monkeypatch):
    data, store = small_parts(monkeypatch), place.store()
    store.write("large", data)
    assert store.read("large") == data
    store.write("large", data[::-1])
    assert store.read("large") == data[::-1]
    if place.server:
        assert uploads_of(place) == []
        client = boto3.client("s3", endpoint_url=place.server.url)
        key = f"{store.uri.removeprefix('s3://servers/')}/large"
        # One part of 5 MiB, another, and the rest.
        assert client.head_object(Bucket="servers", Key=key)["ETag"].strip('"').endswith("-3")


def test_an_upload_that_fails_leaves_nothing(server_place, monkeypatch):
    data, store = small_parts(monkeypatch), server_place.store()
    client = store._backend._client
    upload_part = client.upload_part

    def fails_later(**request):
        if request["PartNumber"] == 2:
            assert len(uploads_of(server_place)) == 1
            raise KeyboardInterrupt
        return upload_part(**request)

    monkeypatch.setattr(client, "upload_part", fails_later)
    with pytest.raises(KeyboardInterrupt):
        store.write("large", data)
    assert uploads_of(server_place) == []
    assert store.list() == []


def test_an_upload_of_a_killed_writer_is_ended(server_place, monkeypatch):
    data, store = small_parts(monkeypatch), server_place.store()
    client = store._backend._client
    with monkeypatch.context() as patch, pytest.raises(OSError, match="killed"):
        patch.setattr(client, "complete_multipart_upload", killed)
        patch.setattr(client, "abort_multipart_upload", killed)
        store.write("images/large", data)
    assert len(uploads_of(server_place)) == 1
    if server_place.name != "moto":  # where each began in 2010
        assert store.abort_uploads(60) == 0
    assert server_place.store().abort_uploads(-60) == 0
    assert len(uploads_of(server_place)) == 1
    assert store.abort_uploads(-60) == 1
    assert uploads_of(server_place) == [] and store.abort_uploads(-60) == 0


def killed(**_):
    raise OSError("killed")


def test_what_a_bad_connection_does_is_made_good(server_place, monkeypatch):
    data, url = small_parts(monkeypatch)[: MIB // 2], server_place.server.url
    with ScriptedProxy(url, "PUT", ["upload cut", "reset before", "reset after"]) as proxy:
        store = server_place.store(proxy.url)
        store.write("object", data)
        assert not proxy.faults
        proxy.method, proxy.faults = "GET", ["reply cut", "reset before", "reply cut"]
        assert store.read("object") == data
        assert not proxy.faults
        proxy.faults = ["reply cut", "reset after"]
        assert store.list() == ["object"]
        assert not proxy.faults


def test_a_body_that_never_comes_whole_is_an_error(server_place, monkeypatch):
    monkeypatch.setattr(buckets, "MAX_ATTEMPTS", 3)
    with ScriptedProxy(server_place.server.url, "GET", ["reply cut"] * 4) as proxy:
        store = server_place.store(proxy.url)
        store.write("object", b"some bytes")
        with pytest.raises(OSError, match=r"Cannot reach s3://servers/.*/object"):
            store.read("object")
        assert len(proxy.faults) == 1


def test_parts_whose_last_reply_is_lost_are_an_object(server_place, monkeypatch):
    data = small_parts(monkeypatch)
    # The first POST creates the upload, the second one completes it.
    with ScriptedProxy(server_place.server.url, "POST", [None, "reset after"]) as proxy:
        store = server_place.store(proxy.url)
        store.write("large", data)
        assert not proxy.faults
        assert store.read("large") == data
    assert uploads_of(server_place) == []


def test_a_missing_bucket_is_a_clear_error(server_place):
    store = Store("s3://absent-bucket/run", server_place.server.url)
    for attempt in (
        lambda: store.write("a", b""),
        lambda: store.write_if_absent("a", b""),
        lambda: store.read("a"),
        lambda: store.list(),
        lambda: store.conditional_writes(),
    ):
        with pytest.raises(FileNotFoundError, match=r"No bucket 'absent-bucket'. Create it first"):
            attempt()


def test_wrong_credentials_are_an_error_without_secrets(server_place, monkeypatch):
    if server_place.name == "moto":
        pytest.skip("moto checks no signature")
    server = server_place.server
    use_credentials(monkeypatch, server.access_key, "wrong-secret")
    store = server_place.store()
    for attempt in (
        lambda: store.write("a", b""),
        lambda: store.write_if_absent("a", b""),
        lambda: store.read("a"),
        lambda: store.exists("a"),
        lambda: store.list(),
        lambda: store.conditional_writes(),
    ):
        with pytest.raises(PermissionError, match=r"was refused \(.*\). Check") as raised:
            attempt()
        text = "".join(traceback.format_exception(raised.value))
        assert "wrong-secret" not in text
        assert server.secret_key not in text


def test_a_shard_comes_back_as_it_was_committed(place):
    store, (rows, images) = place.store(), a_shard()
    assert open_run(store, some_settings(seed=1))
    assert not open_run(store, some_settings(seed=1))
    marker = commit_shard(store, "00000", PLAN, rows, images)
    assert commit_shard(store, "00000", PLAN, rows, images) == marker
    assert committed_shards(store) == [marker]
    assert all_samples(store) == rows
    assert [data for _, data in read_encoded_images(store, "00000")] == images


def test_a_writer_that_meets_its_own_object_goes_on(server_place):
    rows, images = a_shard()
    # What was asked for happens, nobody hears of it, and the same request comes again.
    with ScriptedProxy(server_place.server.url, "PUT", ["reset after"]) as proxy:
        store = server_place.store(proxy.url)
        open_run(store, some_settings(seed=1))
        assert not proxy.faults
        proxy.faults = ["reset after", None] * 3  # tar, sidecar and marker
        marker = commit_shard(store, "00000", PLAN, rows, images)
        assert not proxy.faults
        assert committed_shards(store) == [marker]
        assert [data for _, data in read_encoded_images(store, "00000")] == images
