"""Some images of a shard, read while its tar passes by."""

import numpy as np
import pytest
from small_shard import PLAN, some_images, some_rows

from t2ipal.store import commit_shard, objects, read_chosen_images, read_images
from t2ipal.store.buckets import Bucket

KEYS = ("00000-00000", "00000-00003", "00000-00005")


@pytest.fixture
def shard(store, monkeypatch):
    """The marker of six samples, one of which failed, in a store that is read in many pieces."""
    monkeypatch.setattr(objects, "PIECE_BYTES", 700)
    monkeypatch.setattr("t2ipal.store.buckets.PIECE_BYTES", 700)
    return commit_shard(store, "00000", PLAN, some_rows(6), some_images(6))


def test_the_chosen_images_and_no_others(store, shard):
    every = {row.key: image for row, image in read_images(store, "00000")}
    chosen = dict(read_chosen_images(store, shard, KEYS))
    assert tuple(chosen) == KEYS
    for key, image in chosen.items():
        assert np.array_equal(image, every[key])
    assert not dict(read_chosen_images(store, shard, ()))
    assert not dict(read_chosen_images(store, shard, ["00000-00001"]))  # it failed


def test_pieces_are_of_one_object(store, shard):
    pieces = list(store.pieces("images/00000.tar"))
    assert len(pieces) > 5 and {len(piece) for piece in pieces[:-1]} == {700}
    assert b"".join(pieces) == store.read("images/00000.tar")
    store.write("empty", b"")
    assert list(store.pieces("empty")) == []
    with pytest.raises(FileNotFoundError, match=r"No (file|object) .*missing"):
        list(store.pieces("missing"))


def test_a_piece_comes_again_where_the_connection_breaks(store, shard, monkeypatch):
    if not isinstance(store._backend, Bucket):
        pytest.skip("a folder has no connection")
    from botocore.exceptions import ReadTimeoutError

    client = store._backend._client
    get, asked = client.get_object, []

    class Broken:
        def read(self):
            raise ReadTimeoutError(endpoint_url="x")

    def get_object(**request):
        asked.append(request["Range"])
        return {"Body": Broken()} if len(asked) == 2 else get(**request)

    monkeypatch.setattr(client, "get_object", get_object)
    monkeypatch.setattr("t2ipal.store.buckets._pause", lambda attempt: None)
    assert tuple(dict(read_chosen_images(store, shard, KEYS))) == KEYS
    assert asked[:4] == ["bytes=0-699", *["bytes=700-1399"] * 2, "bytes=1400-2099"]


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_tar_is_named(store, shard, damage):
    data = store.read("images/00000.tar")
    changed = {"cut": data[:2000], "changed": data[:-1] + b"x", "empty": b""}[damage]
    store.write("images/00000.tar", changed)
    message = r"images/00000.tar in .* is not what its marker describes. Remove the marker images/"
    with pytest.raises(ValueError, match=message):
        list(read_chosen_images(store, shard, KEYS))


def test_a_tar_that_is_gone_is_named(store, shard):
    store.delete("images/00000.tar")
    message = r"images/00000.tar in .* is gone, though its marker is there. Remove the marker imag"
    with pytest.raises(FileNotFoundError, match=message):
        list(read_chosen_images(store, shard, KEYS))


def test_an_image_that_cannot_be_read_is_named(store):
    rows, images = some_rows(2, failed=()), some_images(2, failed=())
    marker = commit_shard(store, "00000", PLAN, rows, [images[0], b"no picture"])
    with pytest.raises(ValueError, match=r"00000-00001.jpg in .*/00000.tar is damaged. Remove the"):
        list(read_chosen_images(store, marker, [row.key for row in rows]))
