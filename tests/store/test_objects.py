"""Objects in a folder and in a bucket alike, and addresses that hold none."""

import errno
import os
import pickle
import threading
import time
from pathlib import Path

import pytest

from t2ipal.store import Store, end_old_uploads, objects, read_bytes


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


@pytest.mark.parametrize("code", [None, errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK])
def test_one_of_many_racing_writers_wins(tmp_path, monkeypatch, code):
    """Also where the file system knows no hard links."""
    if code is not None:
        monkeypatch.setattr(os, "link", failing_with(code))
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


def failing_with(code):
    def call(*arguments, **options):
        raise OSError(code, os.strerror(code))

    return call


def test_without_hard_links_a_killed_writer_holds_up_the_next_one_briefly(tmp_path, monkeypatch):
    """It left its guard and its unfinished file, and nothing under the object's name."""
    monkeypatch.setattr(os, "link", failing_with(errno.EPERM))
    monkeypatch.setattr(objects, "GUARD_S", 0.1)
    with monkeypatch.context() as killed:
        killed.setattr(Path, "rename", failing_with(errno.EIO))
        killed.setattr(Path, "unlink", lambda *arguments, **options: None)
        with pytest.raises(OSError, match=r"Cannot write .*/marker \(Input/output error\)"):
            Store(tmp_path).write_if_absent("marker", b"first")
    assert len(os.listdir(tmp_path)) == 2 and Store(tmp_path).list() == []
    assert Store(tmp_path).write_if_absent("marker", b"second")
    assert not Store(tmp_path).write_if_absent("marker", b"third")
    assert Store(tmp_path).read("marker") == b"second"


def test_a_file_system_that_cannot_sync_or_link_is_told_from_one_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing_with(errno.EINVAL))
    Store(tmp_path).write("a", b"1")
    assert Store(tmp_path).read("a") == b"1"
    monkeypatch.setattr(os, "link", failing_with(errno.ENOSPC))
    with pytest.raises(OSError, match=r"No space left in .*: b needs 1 bytes"):
        Store(tmp_path).write_if_absent("b", b"1")
    assert os.listdir(tmp_path) == ["a"]


def test_a_store_can_be_pickled(store):
    store.write("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"1"


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_workers_ask_the_server_that_the_driver_s_environment_names(name, s3_server, monkeypatch):
    """On other machines, whose environment does not."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv(name, s3_server)
    sent = pickle.dumps(Store("s3://runs/sent"))
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv(name, raising=False)
    pickle.loads(sent).write("a", b"1")
    assert Store("s3://runs/sent", s3_server).read("a") == b"1"


def test_old_files_of_killed_writers_are_removed(tmp_path, caplog):
    store, old = Store(tmp_path), time.time() - 25 * 3600
    store.write("images/00000.tar", b"1")
    names = [f".part-{digit * 32}" for digit in "1f"] + [".part-mine", ".part-" + "0" * 32]
    for name in names:
        (tmp_path / "images" / name).write_bytes(b"half")
    for path in [tmp_path / "images" / name for name in ("00000.tar", *names[:3])]:
        os.utime(path, (old, old))
    for _ in range(2):
        end_old_uploads(store)
        left = sorted(os.listdir(tmp_path / "images"))
        assert left == [".part-" + "0" * 32, ".part-mine", "00000.tar"]
    (record,) = caplog.records
    assert record.getMessage() == (
        f"Removed what 2 writes of killed processes left in {tmp_path} more than 24 hours ago."
    )


def test_reading_a_file_by_its_address(tmp_path, monkeypatch, s3_server):
    (tmp_path / "captions.txt").write_bytes(b"a dog")
    monkeypatch.chdir(tmp_path)
    assert read_bytes("captions.txt") == b"a dog"
    assert read_bytes(tmp_path / "captions.txt") == b"a dog"
    assert read_bytes(f"file://{tmp_path}/captions%2Etxt") == b"a dog"
    assert read_bytes(f"file://localhost{tmp_path}/captions.txt") == b"a dog"
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


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(PermissionError, match=r"Cannot write to .*file"):
        Store(tmp_path / "file").write("a", b"")
    with pytest.raises(PermissionError, match=r"Cannot write to .*file.* Choose another folder"):
        Store(tmp_path / "file" / "run").write_if_absent("config.json", b"")


def test_what_cannot_be_written_is_known_beforehand(store):
    store.require_writable("a/b.json")
    assert store.list() == []
    store.write("a/b.json", b"old")
    store.require_writable("a/b.json")
    assert store.read("a/b.json") == b"old"
    if not store.is_bucket:
        with pytest.raises(OSError, match=r"Cannot write .*/a \(Is a directory\)"):
            store.require_writable("a")
        with pytest.raises(PermissionError, match=r"Cannot write to .*/a/b.json \("):
            store.require_writable("a/b.json/c")


def test_a_bucket_that_cannot_be_written_is_known_beforehand(s3_server):
    with pytest.raises(FileNotFoundError, match="No bucket 'none'"):
        Store("s3://none/run", s3_server).require_writable("a.json")


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


@pytest.mark.parametrize("name", ["scandir", "stat"])
def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path, monkeypatch, name):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/00000.json").write_text("{}")
    call = getattr(os, name)

    def refuse(path=".", *args, **settings):
        if str(path).startswith(str(tmp_path / "images")):
            raise PermissionError(13, "Permission denied", str(path))
        return call(path, *args, **settings)

    monkeypatch.setattr(os, name, refuse)
    store, message = Store(tmp_path), r"Cannot read .*/images.* \(Permission denied\)\."
    for look in (store.list, lambda: store.times("images/")):
        with pytest.raises(PermissionError, match=message):
            look()
    if name == "stat":
        with pytest.raises(PermissionError, match=message):
            store.exists("images/00000.json")


@pytest.mark.parametrize("key", ["a\0b", "folder/a\ud800", "../a", "images/../../a", "/etc/a"])
def test_what_no_file_can_be_called_is_named(tmp_path, key):
    store = Store(tmp_path)
    for look in (store.exists, store.read, store.delete, lambda key: store.write(key, b"")):
        with pytest.raises(ValueError, match=r"No file of .* can be called"):
            look(key)
