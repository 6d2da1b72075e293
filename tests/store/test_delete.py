"""Removing one object, in a folder and in a bucket."""

import errno
from pathlib import Path

import boto3
import pytest
from conftest import use_credentials

from t2ipal.store import Store


def test_an_object_is_removed_and_no_other(store):
    store.write("train/a/checkpoint.pt", b"1")
    store.write("train/a/checkpoint.pt.old", b"2")
    store.delete("train/a/checkpoint.pt")
    assert not store.exists("train/a/checkpoint.pt")
    assert store.list() == ["train/a/checkpoint.pt.old"]
    assert store.write_if_absent("train/a/checkpoint.pt", b"3")


def test_what_is_not_there_is_removed_already(store):
    store.write("file", b"1")
    store.write("folder/inside", b"2")
    for key in ("none", "no/such/folder", "file/below", "folder"):
        store.delete(key)
    assert store.list() == ["file", "folder/inside"]


def test_no_bucket(s3_server):
    with pytest.raises(FileNotFoundError, match="No bucket 'nowhere'"):
        Store("s3://nowhere/run", s3_server).delete("key")


def test_swift_too(swift, monkeypatch):
    use_credentials(monkeypatch, swift.access_key, swift.secret_key)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", swift.url)
    boto3.client("s3").create_bucket(Bucket="deleting")
    store = Store("s3://deleting/run")
    store.write("key", b"1")
    store.delete("key")
    store.delete("key")
    assert not store.exists("key") and store.list() == []


def test_who_may_not_is_told(tmp_path, monkeypatch):
    def refuse(path, missing_ok):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(PermissionError, match=r"Cannot remove .*key \(Permission denied\)"):
        Store(tmp_path).delete("key")
