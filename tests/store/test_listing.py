"""Listings that stay in one folder, and what a path's store and key are."""

import os
from pathlib import Path

import pytest

from t2ipal.store import Store, split_uri


def test_a_listing_that_does_not_look_below(store):
    for key in ("a", "b", "sub/a", "sub/b", "sub/below/c"):
        store.write(key, b"")
    assert store.list(recursive=False) == ["a", "b"]
    assert store.list("a", recursive=False) == ["a"]
    assert store.list("sub/", recursive=False) == ["sub/a", "sub/b"]
    assert store.list("sub/") == ["sub/a", "sub/b", "sub/below/c"]


def test_folders_at_the_top(store):
    assert store.folders() == []
    for key in ("sub/a", "sub/below/c", "sub-b/a", "other/a", "subfile"):
        store.write(key, b"")
    assert store.folders() == ["other", "sub", "sub-b"]
    assert store.folders("sub") == ["sub", "sub-b"]
    assert store.folders("none") == []


def test_a_link_to_nothing_is_no_object(tmp_path):
    (tmp_path / "there").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    assert Store(tmp_path).list() == ["there"]


def test_split_uri(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    assert split_uri("a/b.csv") == (f"{here}/a", "b.csv")
    assert split_uri("./b/") == (here, "b")
    assert split_uri(".") == (str(tmp_path.parent), tmp_path.name)
    assert split_uri("/b") == ("/", "b")
    assert split_uri(Path("/a/b")) == ("/a", "b")
    assert split_uri("~/b") == (os.path.expanduser("~"), "b")
    assert split_uri("s3://bucket/a/b/") == ("s3://bucket/a", "b")
    with pytest.raises(ValueError, match="s3://bucket names a bucket, expected something in it"):
        split_uri("s3://bucket")
