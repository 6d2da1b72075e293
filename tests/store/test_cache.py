"""Copies of a bucket's objects: fetched once, whole, bounded, shared by processes."""

import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from benchmarks.chaos.proxy import FaultyProxy
from t2ipal.store import LocalCopies, Store, buckets, map_arrays, write_arrays

KIB = 1024


@pytest.fixture
def store(s3_server, tmp_path):
    store = Store(f"s3://runs/{tmp_path.name}", s3_server)
    for number in range(6):
        write_arrays(store, f"{number}", {"a": np.full(2 * KIB, number, np.float16)}, ["x"])
    return store


def fetch(copies, store, number):
    path = copies.fetch(store, f"{number}", store.entries()[f"{number}"].version)
    return map_arrays(path, "copy").arrays["a"]


def sizes(copies):
    return sum(path.stat().st_size for path in copies.folder.glob("*.copy"))


def test_an_object_is_fetched_once(store, tmp_path, monkeypatch):
    copies, asked = LocalCopies(tmp_path / "cache", 10**9), []
    pieces = Store.pieces

    def counted(self, key):
        asked.append(key)
        return pieces(self, key)

    monkeypatch.setattr(Store, "pieces", counted)
    for _ in range(3):
        assert (fetch(copies, store, 4) == 4).all()
    with ThreadPoolExecutor(8) as pool:  # at once
        assert all(
            (each == 5).all() for each in pool.map(lambda _: fetch(copies, store, 5), range(8))
        )
    assert asked == ["4", "5"]


def fetch_all(uri, url, folder):
    store, copies = Store(uri, url), LocalCopies(folder, 10**9)
    versions = store.entries()
    pieces, count = store.pieces, [0]

    def counted(key):
        count[0] += 1
        time.sleep(0.05)  # so that the others wait
        return pieces(key)

    store.pieces = counted
    for key in versions:
        copies.fetch(store, key, versions[key].version)
    return count[0]


def test_several_processes_share_them(store, tmp_path):
    arguments = (store.uri, store.endpoint_url, tmp_path / "cache")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        counts = pool.starmap(fetch_all, [arguments] * 3)
    assert sum(counts) == 6


def test_a_new_version_is_another_copy(store, tmp_path):
    copies = LocalCopies(tmp_path / "cache", 10**9)
    assert (fetch(copies, store, 0) == 0).all()
    write_arrays(store, "0", {"a": np.full(2 * KIB, 9, np.float16)}, ["x"])
    assert (fetch(copies, store, 0) == 9).all()


def test_what_was_used_longest_ago_gives_way(store, tmp_path):
    """And who has it open reads on."""
    copies = LocalCopies(tmp_path / "cache", 4 * 4400)
    opened = fetch(copies, store, 0)
    first = next(copies.folder.glob("*.copy"))
    for number in range(1, 4):
        os.utime(first, (number, number))
        fetch(copies, store, number)
    assert sizes(copies) <= 4 * 4400 and first.exists()
    fetch(copies, store, 4)
    assert sizes(copies) <= 4 * 4400 and not first.exists()
    assert (opened == 0).all()
    assert (fetch(copies, store, 0) == 0).all()  # again


def test_a_bound_below_one_object(store, tmp_path):
    copies = LocalCopies(tmp_path / "cache", 10)
    for number in range(3):
        assert (fetch(copies, store, number) == number).all()
    assert sizes(copies) < 5000


def test_faults_of_the_store_are_tried_again(s3_server, tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, "MAX_PAUSE_S", 0.01)
    direct = Store(f"s3://runs/{tmp_path.name}", s3_server)
    write_arrays(direct, "0", {"a": np.arange(2 * KIB, dtype=np.float16)}, ["x"])
    with FaultyProxy(s3_server, rate=0.4, seed=1) as proxy:
        store, copies = Store(direct.uri, proxy.url), LocalCopies(tmp_path / "cache", 10**9)
        for number in range(10):
            path = copies.fetch(store, "0", f"{number}")
            assert (map_arrays(path, "").arrays["a"] == np.arange(2 * KIB, dtype=np.float16)).all()
        assert sum(proxy.counts.values()) > 3


def test_an_object_that_is_damaged_in_the_store(store, tmp_path):
    data = bytearray(store.read("0"))
    data[-1] ^= 1
    store.write("0", bytes(data))
    copies = LocalCopies(tmp_path / "cache", 10**9)
    with pytest.raises(ValueError, match=r"0 in s3://runs/.* is not a complete safetensors file"):
        fetch(copies, store, 0)
    assert not [*copies.folder.glob("*.copy")] and not [*copies.folder.glob(".part*")]
    with pytest.raises(FileNotFoundError, match="No object s3://runs/"):
        copies.fetch(store, "none", "1")


def test_a_folder_that_cannot_be_written(store, tmp_path):
    (tmp_path / "file").write_text("")
    copies = LocalCopies(tmp_path / "file" / "cache", 10**9)
    message = (
        "Copies of a bucket's features lie in .*file/cache, which cannot be written .* name an"
    )
    with pytest.raises(OSError, match=message):
        fetch(copies, store, 0)


def test_a_disk_that_is_full(store, tmp_path, monkeypatch):
    """Copies give way first, though the bound has room; then the message says what to do."""
    copies = LocalCopies(tmp_path / "cache", 10**9)
    fetch(copies, store, 0)
    pieces, full = Store.pieces, [True]

    def no_space(self, key):
        if full[0]:
            full[0] = forever
            raise OSError(28, "No space left on device")
        return pieces(self, key)

    monkeypatch.setattr(Store, "pieces", no_space)
    forever = False
    assert (fetch(copies, store, 1) == 1).all()
    assert len([*copies.folder.glob("*.copy")]) == 1
    full[0] = forever = True
    with pytest.raises(OSError, match=r"cannot be written .No space left on device.. Make room"):
        fetch(copies, store, 2)


def test_what_a_killed_process_left_goes(store, tmp_path):
    copies = LocalCopies(tmp_path / "cache", 10**9)
    copies.folder.mkdir()
    old, new = (copies.folder / f".part-{name}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"part")
    os.utime(old, (1, 1))
    fetch(copies, store, 0)
    assert new.exists() and not old.exists()
