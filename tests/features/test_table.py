"""Rows of features in many files: the same whether they are mapped, held in memory, or fetched."""

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_table import stored_table, table_of

from t2ipal.features.config import FeatureAccess
from t2ipal.features.extraction import in_8_bits, stored_columns
from t2ipal.features.sets import FeatureSet
from t2ipal.features.table import (
    GLOBAL,
    LENGTHS,
    LOCAL,
    POOLED,
    SCALES,
)
from t2ipal.store import LocalCopies, Store, read_arrays, write_arrays

WIDTH, LOCATIONS, LENGTHS_OF = 6, 4, (3, 5, 1, 4, 2, 5, 3)
SIZES = (3, 1, 3)
"""Rows of each file."""
STARTS = np.cumsum([0, *SIZES])
LABELS = torch.arange(14).view(7, 2) % 3 == 0


def unit(*shape, seed=0):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values, dim=-1)


def image_rows():
    return FeatureSet(unit(7, WIDTH), unit(7, LOCATIONS, WIDTH, seed=1), None, LABELS.float(),
                      unit(7, WIDTH, seed=2))  # fmt: skip


def text_rows():
    mask = torch.arange(5) < torch.tensor(LENGTHS_OF).unsqueeze(1)
    local = unit(7, 5, WIDTH, seed=1) * mask.unsqueeze(2)
    return FeatureSet(unit(7, WIDTH), local, mask, LABELS.float())


def stored(store, rows, kind="fp16", **options):
    """The rows in three files of a store."""
    return stored_table(store, rows, SIZES, kind, **options)


def assert_same(one, other):
    for name in ("global_features", "local_features", "mask", "labels", "pooled_features"):
        ours, theirs = getattr(one, name), getattr(other, name)
        if ours is None or theirs is None:
            assert ours is theirs
        else:
            assert torch.equal(ours, theirs), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("table")


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(st.integers(0, 6), max_size=9), of_texts=st.booleans(), bits=st.booleans())
def test_mapped_and_held_rows_are_the_same(folder, rows, of_texts, bits):
    """And they are those that were stored, in the order asked for, repetitions too."""
    kind, made = "int8" if bits else "fp16", text_rows() if of_texts else image_rows()
    mapped = stored(Store(folder / f"{kind}{of_texts}"), made, kind)
    index = torch.tensor(rows, dtype=torch.long)
    got = mapped.rows(index)
    assert_same(got, mapped.held().rows(index))
    assert_same(got, pickle.loads(pickle.dumps(mapped)).rows(index))
    assert_same(got, mapped.subset(index).rows(slice(None)))
    wanted = made.rows(index)
    if of_texts and rows:
        longest = max(LENGTHS_OF[row] for row in rows)
        local, mask = wanted.local_features[:, :longest], wanted.mask[:, :longest]
        wanted = replace(wanted, local_features=local, mask=mask)
    if rows:
        torch.testing.assert_close(
            got.global_features, wanted.global_features, rtol=1e-3, atol=1e-3
        )
        atol = 1 / 250 if bits else 1e-3
        torch.testing.assert_close(got.local_features, wanted.local_features, rtol=1e-3, atol=atol)
        assert of_texts == (got.mask is not None) and (
            got.mask is None or torch.equal(got.mask, wanted.mask)
        )
    assert got.local_features.shape[0] == len(rows) and got.local_features.shape[-1] == WIDTH
    assert torch.equal(got.labels, wanted.labels)


def test_a_table(tmp_path):
    made = image_rows()
    table = stored(Store(tmp_path), made)
    assert len(table) == 7 and torch.equal(table.labels, LABELS)
    assert table.keys == [f"k{at}" for at in range(7)]
    some = table.subset(torch.tensor([False, True, False, True, False, False, True]))
    assert (len(some), some.keys) == (3, ["k1", "k3", "k6"])
    assert torch.equal(some.labels, LABELS[[1, 3, 6]])
    assert torch.equal(some.column(POOLED), table.column(POOLED)[[1, 3, 6]])
    assert torch.equal(some.subset(torch.tensor([2])).column(POOLED), table.column(POOLED)[[6]])
    assert torch.equal(some.column(GLOBAL, slice(1, 2)), table.column(GLOBAL)[[3]])
    with pytest.raises(KeyError, match="hashes"):
        table.column("hashes")
    assert table.held().keys == table.keys


def test_captions_take_no_padding_on_disk(tmp_path):
    store = Store(tmp_path)
    stored(store, text_rows())
    arrays, _ = read_arrays(store, "f/0")
    assert arrays[LOCAL].shape == (3 + 5 + 1, WIDTH) and arrays[LENGTHS].tolist() == [3, 5, 1]
    assert arrays[LOCAL].dtype == np.float16


def test_padded_captions_of_an_earlier_version(tmp_path):
    """Beside those without padding, as in a run that grew."""
    made, store = text_rows(), Store(tmp_path)
    table = stored(store, made)
    before = table.rows(slice(None))
    part = made.rows(slice(0, 3))
    old = {GLOBAL: part.global_features.half().numpy(), LOCAL: part.local_features.half().numpy(),
           "mask": part.mask.numpy()}  # fmt: skip
    write_arrays(store, "f/0", old, ["k0", "k1", "k2"])
    again = table_of(store, STARTS, "f", LABELS)
    assert_same(again.rows(slice(None)), before)
    some = torch.tensor([6, 0])
    assert_same(again.held().rows(some), table.rows(some))


def test_8_bits_are_within_half_a_step():
    features = unit(50, 9, 64)
    numbers, scales = in_8_bits(features)
    assert numbers.dtype == torch.int8 and scales.shape == (50, 9)
    again = numbers.float() * scales.float().unsqueeze(-1)
    step = features.abs().amax(dim=-1, keepdim=True) / 127
    assert ((again - features).abs() <= 0.52 * step + 1e-6).all()
    assert torch.equal(in_8_bits(torch.zeros(1, 4))[0], torch.zeros(1, 4, dtype=torch.int8))


def test_8_bits_take_half_the_disk(tmp_path):
    rows = FeatureSet(unit(20, 64), unit(20, 9, 64), None, torch.zeros(20, 2), unit(20, 64))
    sizes = {}
    for kind in ("fp16", "int8"):
        columns = stored_columns(rows, kind)
        assert (SCALES in columns) == (kind == "int8")
        sizes[kind] = columns[LOCAL].nbytes + columns.get(SCALES, np.zeros(0)).nbytes
    assert sizes["int8"] < 0.53 * sizes["fp16"]


def damage(store, key, change):
    arrays, keys = read_arrays(store, key)
    change(arrays)
    write_arrays(store, key, arrays, keys)


def nan(arrays):
    arrays[LOCAL][1, 2] = np.nan


def infinite(arrays):
    arrays[GLOBAL][2, 0] = np.inf


def uneven(arrays):
    arrays[POOLED] = arrays[POOLED][1:]


def short(arrays):
    arrays[LOCAL] = arrays[LOCAL][1:]


def none(arrays):
    arrays["other"] = arrays.pop(GLOBAL)


def narrow(arrays):
    for name in arrays:
        arrays[name] = arrays[name][..., :3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan, "f/2 in .* holds local_features that are infinite or no numbers. Remove it and run"),
        (infinite, "f/2 in .* holds global_features that are infinite or no numbers"),
        (uneven, r"f/2 in .* holds columns of \[2, 3\] rows. Remove it and run the command again"),
        (short, r"f/2 in .* holds columns of \[2, 3\] rows. Remove it and run the command again"),
        (none, r"f/2 in .* holds no features. Remove it and run the command again"),
        (narrow, r"f/2 in .* holds .* of shape .*3.* other files have .*6.*another backbone"),
    ],
)
def test_damaged_numbers(tmp_path, change, message):
    store = Store(tmp_path)
    stored(store, image_rows())
    damage(store, "f/2", change)
    table = table_of(store, STARTS, "f", LABELS)
    assert len(table.rows(slice(0, 4))) == 4  # of the other files
    for read in (table.held, lambda: table.rows(torch.tensor([0, 5, 6]))):
        with pytest.raises(ValueError, match=message):
            read()


def test_lengths_that_do_not_fit(tmp_path):
    table = stored(Store(tmp_path), text_rows())

    def longer(arrays):
        arrays[LENGTHS] = arrays[LENGTHS] + 1

    damage(Store(tmp_path), "f/0", longer)
    with pytest.raises(
        ValueError, match=r"f/0 in .* holds 9 positions, and captions of 12. Remove"
    ):
        table.rows(slice(None))


def test_a_column_that_some_files_lack(tmp_path):
    store = Store(tmp_path)
    table = stored(store, image_rows())
    damage(store, "f/1", lambda arrays: arrays.pop(POOLED))
    message = "Some files of the same features have pooled_features, others do not, first f/1 in "
    for read in (lambda: table.rows(slice(None)), lambda: table.column(POOLED)):
        with pytest.raises(ValueError, match=message):
            read()


def test_a_worker_without_a_caption(tmp_path):
    """Its rows have a shape that every aggregation takes."""
    none = stored(Store(tmp_path), text_rows()).rows(torch.zeros(0, dtype=torch.long))
    assert none.local_features.shape == (0, 1, WIDTH) and none.mask.shape == (0, 1)
    assert none.local_features.amax(dim=1).shape == (0, WIDTH)


def test_mapped_files_take_no_descriptor(tmp_path):
    table = stored(Store(tmp_path), image_rows())
    before = len(os.listdir("/proc/self/fd"))
    table.rows(slice(None))
    assert len(table._files._open) == 3 and len(os.listdir("/proc/self/fd")) == before


def test_a_copy_that_gave_way_is_fetched_again(s3_server, tmp_path, monkeypatch):
    """As where another process made room before this one had opened it."""
    access = FeatureAccess(feature_cache=str(tmp_path / "cache"))
    table = stored(Store(f"s3://runs/{tmp_path.name}", s3_server), image_rows(), access=access)
    fetch, times = LocalCopies.fetch, []

    def lost_once(self, store, key, version):
        path = fetch(self, store, key, version)
        times.append(key)
        if times.count(key) == 1:
            path.unlink()
        return path

    monkeypatch.setattr(LocalCopies, "fetch", lost_once)
    assert len(table.rows(slice(None))) == 7 and len(times) == 6


def test_features_of_another_backbone(tmp_path):
    table = stored(Store(tmp_path), image_rows(), fingerprint="def")
    message = "f/0 in .* holds features of the backbone abc, wanted def. Remove it and run"
    with pytest.raises(ValueError, match=message):
        table.rows(slice(0, 1))


@pytest.mark.parametrize("keep", [0, 5, 60, 300])
def test_a_shard_that_is_cut_short(tmp_path, keep):
    store = Store(tmp_path)
    table = stored(store, image_rows())
    store.write("f/1", store.read("f/1")[:keep])
    with pytest.raises(ValueError, match=r"f/1 in .* is not a complete safetensors file"):
        table.rows(slice(None))


def test_numbers_that_are_none_are_not_stored():
    rows = image_rows()
    rows.local_features[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="The backbone gave features that are infinite or no num"):
        stored_columns(rows, "fp16")
