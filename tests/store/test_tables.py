"""Parquet and safetensors, whole and damaged."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from t2ipal.store import read_arrays, read_parquet_columns, write_arrays


def test_parquet_columns(tmp_path):
    path = tmp_path / "captions.parquet"
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"], "url": ["x", "y"]}), path)
    assert read_parquet_columns(path, lambda names: names[1::-1]) == {
        "text": ["a", "b"],
        "id": [1, 2],
    }
    with pytest.raises(ValueError, match=r"captions.parquet: Unknown column 'txt'.*mean 'text'"):
        read_parquet_columns(path, lambda _: ["txt"])
    path.write_bytes(Path(path).read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"captions.parquet: .*not a parquet file"):
        read_parquet_columns(path, lambda _: ["text"])


def test_arrays(store):
    arrays = {
        "global_features": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float16),
        "labels": np.array([[1, 0], [0, 1], [1, 1]], dtype=np.int64).T,
    }
    write_arrays(store, "features/00000.safetensors", arrays)
    back, row_keys = read_arrays(store, "features/00000.safetensors")
    assert row_keys is None
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert np.array_equal(back[name], array)
    with pytest.raises(FileNotFoundError):
        read_arrays(store, "features/00001.safetensors")
    store.write("features/00000.safetensors", store.read("features/00000.safetensors")[:-3])
    with pytest.raises(ValueError, match=r"not a complete safetensors file"):
        read_arrays(store, "features/00000.safetensors")


def test_arrays_with_names_of_their_rows(store):
    arrays, names = {"labels": np.eye(2)}, ["00000-00001", "a “dog”"]
    write_arrays(store, "a.safetensors", arrays, names)
    back, row_keys = read_arrays(store, "a.safetensors")
    assert np.array_equal(back["labels"], arrays["labels"]) and row_keys == names
    assert {*safetensors.numpy.load(store.read("a.safetensors"))} == {"labels"}  # as others do
    write_arrays(store, "a.safetensors", {"labels": np.zeros((0, 2))}, [])
    assert read_arrays(store, "a.safetensors")[1] == []
