"""Features joined to the samples of a run by their keys, never by order."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from small_shard import PLAN, some_images, some_rows, some_settings

from t2ipal.features.extraction import FeatureTask
from t2ipal.features.reading import read_hashes, read_training_features
from t2ipal.store import (
    Caption,
    ChoiceRow,
    RunTotals,
    Section,
    Store,
    commit_shard,
    read_arrays,
    read_run,
    write_arrays,
    write_choice,
    write_manifest,
    write_section,
    write_section_captions,
)

FOLDER = "features/0"
TEXTS = FeatureTask("texts", "00000000-00000003").key(FOLDER)
IMAGES = [FeatureTask("images", shard).key(FOLDER) for shard in ("00000", "00001")]
REMEDY = "Remove it and run the command again: features are computed anew"


def numbered(first, count, with_mask=False):
    """Features whose rows tell their numbers."""
    rows = np.arange(first, first + count, dtype=np.float16)
    local = np.stack([rows, rows + 0.5], axis=1)[:, :, None] * np.ones(4, np.float16)
    arrays = {"global_features": rows[:, None] * np.ones(4, np.float16), "local_features": local}
    if with_mask:
        return {**arrays, "mask": np.stack([rows >= 0, rows % 2 == 0], axis=1)}
    return {
        **arrays,
        "pooled_features": arrays["global_features"] + 100,
        "hashes": np.arange(first, first + count, dtype=np.int64),
    }


@pytest.fixture
def store(tmp_path):
    """Three captions with two images each, in two shards; the second sample of each failed."""
    store = Store(tmp_path)
    captions = [Caption(str(i), f"a dog {i}", (i % 2,)) for i in range(3)]
    key = write_section_captions(store, 0, captions)
    write_section(store, 0, Section(0, 2, 0, 3, 0, 2, key))
    for number, shard in enumerate(("00000", "00001")):
        rows = [
            dataclasses.replace(row, key=f"{shard}-{i:05d}", k=number, labels=(i % 2,))
            for i, row in enumerate(some_rows())
        ]
        commit_shard(store, shard, PLAN, rows, some_images())
        keys = [row.key for row in rows if row.is_image]
        write_arrays(store, IMAGES[number], numbered(2 * number, 2), keys)
    settings = some_settings(images_per_caption=2)
    write_manifest(store, RunTotals(**vars(settings), num_captions=3, captions="0"))
    write_arrays(store, TEXTS, numbered(0, 3, True), ["0", "1", "2"])
    return store


def rewrite(store, key, change):
    """Changes the arrays and the names of the rows of a stored shard."""
    arrays, keys = read_arrays(store, key)
    write_arrays(store, key, *change(arrays, keys))


def hashes_of(store):
    return read_hashes(read_run(store), read_training_features(store, FOLDER).images)


def turned(arrays, keys):
    return {name: array[::-1] for name, array in arrays.items()}, keys[::-1]


def same(one, other):
    """Whether two sets of features are the same, row for row."""
    assert one.keys == other.keys
    one, other = one.rows(slice(None)), other.rows(slice(None))
    for name in ("global_features", "local_features", "mask", "labels", "pooled_features"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert ours is theirs is None or torch.equal(ours, theirs)
    return True


def test_rows_find_their_samples(store):
    data = read_training_features(store, FOLDER)
    assert data.texts.keys == ["0", "1", "2"]
    assert data.texts.column("global_features")[:, 0].tolist() == [0, 1, 2]
    mask = data.texts.rows(slice(None)).mask
    assert mask.tolist() == [[True, True], [True, False], [True, True]]
    assert data.images.keys == ["00000-00000", "00000-00002", "00001-00000", "00001-00002"]
    assert data.images.column("global_features")[:, 0].tolist() == [0, 1, 2, 3]
    assert data.images.labels.tolist() == [[1, 0]] * 4
    assert data.image_of_caption.tolist() == [[0, 2], [-1, -1], [1, 3]]
    assert hashes_of(store).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("key", [TEXTS, *IMAGES])
def test_rows_in_another_order_are_joined_by_their_keys(store, key):
    before, hashes = read_training_features(store, FOLDER), hashes_of(store)
    rewrite(store, key, turned)
    after = read_training_features(store, FOLDER)
    assert same(after.texts, before.texts) and same(after.images, before.images)
    assert torch.equal(after.image_of_caption, before.image_of_caption)
    assert torch.equal(hashes_of(store), hashes)


def test_rows_that_nobody_asks_for_are_left_out(store):
    """As where a worker was late: its shard was made of more samples."""
    before = read_training_features(store, FOLDER)

    def more(arrays, keys):
        arrays = {name: np.concatenate([array[:1], array]) for name, array in arrays.items()}
        return arrays, ["00000-00009", *keys]

    rewrite(store, IMAGES[0], more)
    assert same(read_training_features(store, FOLDER).images, before.images)


@pytest.mark.parametrize(
    ("key", "wanted", "found"),
    [(IMAGES[0], "00000-00002", "00007-00000"), (TEXTS, "2", "00007-00000")],
)
def test_rows_of_other_samples_are_refused(store, key, wanted, found):
    rewrite(store, key, lambda arrays, keys: (arrays, [*keys[:-1], "00007-00000"]))
    message = f"{key} in .* of other samples: the run has '{wanted}' there, the features '{found}'"
    with pytest.raises(ValueError, match=f"{message}. {REMEDY}"):
        read_training_features(store, FOLDER)


def test_a_shard_that_lacks_a_row_is_refused(store):
    def fewer(arrays, keys):
        return {name: array[:1] for name, array in arrays.items()}, keys[:1]

    rewrite(store, IMAGES[1], fewer)
    message = "the run has '00001-00002' there, the features do not"
    with pytest.raises(ValueError, match=f"{IMAGES[1]} in .* {message}. {REMEDY}"):
        read_training_features(store, FOLDER)
    with pytest.raises(ValueError, match=message):
        hashes_of(store)


def test_features_from_before_rows_had_keys_are_read_in_order(store):
    before = read_training_features(store, FOLDER)
    for key in (TEXTS, *IMAGES):
        rewrite(store, key, lambda arrays, keys: (arrays, None))
    after = read_training_features(store, FOLDER)
    assert same(after.texts, before.texts) and same(after.images, before.images)


@pytest.mark.parametrize(("key", "count"), [(TEXTS, 3), (IMAGES[0], 2)])
def test_without_keys_another_number_of_rows_is_refused(store, key, count):
    def fewer(arrays, keys):
        return {name: array[1:] for name, array in arrays.items()}, None

    rewrite(store, key, fewer)
    message = f"holds the features of {count - 1} samples, the run has {count} there. {REMEDY}"
    with pytest.raises(ValueError, match=message):
        read_training_features(store, FOLDER)


def test_features_from_before_there_were_hashes(store):
    def without(arrays, keys):
        return {name: array for name, array in arrays.items() if name != "hashes"}, keys

    rewrite(store, IMAGES[1], without)
    assert len(read_training_features(store, FOLDER).images) == 4
    message = "The features in .* have no hashes of the images. Remove their folder"
    with pytest.raises(ValueError, match=message):
        hashes_of(store)


def chosen(keys, kept):
    return [ChoiceRow(key, "", 0, 0.5, (), (), "", key in kept) for key in keys]


def test_a_choice_is_joined_by_key_too(store):
    keys = [sample.key for sample in read_run(store).images]
    write_choice(store, "best", chosen(keys[::-1], {"00001-00000", "00000-00002"}), {})
    data = read_training_features(store, FOLDER, "best")
    assert data.image_of_caption.tolist() == [[-1, 2], [-1, -1], [1, -1]]
    write_choice(store, "old", chosen(keys[:3], keys), {})
    message = r"The choice 'old' in .* was made before 1 of the run's images were there \(first: 00"
    with pytest.raises(ValueError, match=message):
        read_training_features(store, FOLDER, "old")


def test_features_that_are_missing(store):
    (Path(store.uri) / IMAGES[1]).unlink()
    message = f"1 feature shards are missing in .*/{FOLDER}. Run jobs/train.py, which computes them"
    with pytest.raises(FileNotFoundError, match=message):
        read_training_features(store, FOLDER)
