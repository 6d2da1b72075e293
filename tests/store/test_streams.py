import csv
import io
import json
import os
import stat

import pyarrow.parquet as pq
import pytest

from t2ipal.store import Store, streams, table_format, table_writer

COLUMNS = {"file": "text", "labels": "texts", "scores": "numbers", "width": "count", "p": "number"}
ROWS = [
    {
        "file": 'é, "x".jpg',
        "labels": ("dog", "tv, old"),
        "scores": (0.5, 1e-6),
        "width": 3,
        "p": 1.5,
    },
    {"file": "b", "labels": [], "scores": [], "width": 0, "p": None, "more": "is left out"},
]
PLAIN = [{name: row[name] for name in COLUMNS} for row in ROWS]


def written(store, name, groups):
    with table_writer(f"{store.uri}/{name}", COLUMNS, store.endpoint_url) as write:
        for rows in groups:
            write(rows)
            assert not store.exists(name)
    return store.read(name)


def test_json_lines(store):
    lines = written(store, "a.jsonl", [ROWS[:1], [], ROWS[1:]]).decode().splitlines()
    assert [json.loads(line) for line in lines] == json.loads(json.dumps(PLAIN))
    assert "é" in lines[0] and list(json.loads(lines[0])) == list(COLUMNS)


def test_csv(store):
    text = written(store, "below/a.CSV", [ROWS]).decode()
    header, first, second = csv.reader(io.StringIO(text))
    assert header == list(COLUMNS)
    assert first == ['é, "x".jpg', "dog;tv, old", "0.5;1e-06", "3", "1.5"]
    assert second == ["b", "", "", "0", ""]


def test_a_csv_holds_what_is_there(tmp_path):
    """A formula of a spreadsheet too: a program looks for the file of that name."""
    row = {**ROWS[0], "file": "=1+1.jpg"}
    text = written(Store(tmp_path), "a.csv", [[row]]).decode()
    assert next(csv.DictReader(io.StringIO(text)))["file"] == "=1+1.jpg"


def test_parquet_in_row_groups(store, monkeypatch):
    monkeypatch.setattr(streams, "GROUP_ROWS", 4)
    data = written(store, "a.parquet", [ROWS] * 5)
    file = pq.ParquetFile(io.BytesIO(data))
    assert file.num_row_groups == 3 and file.metadata.num_rows == 10
    assert file.read().to_pylist() == [
        {**row, "labels": list(row["labels"]), "scores": list(row["scores"])} for row in PLAIN
    ] * 5  # fmt: skip


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_no_rows(store, name):
    assert (written(store, name, []) == b"") == (name == "a.jsonl")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_writer_that_fails_leaves_what_was_there(store, name):
    store.write(name, b"before")
    with (
        pytest.raises(RuntimeError, match="lost"),
        table_writer(f"{store.uri}/{name}", COLUMNS, store.endpoint_url) as write,
    ):
        write(ROWS)
        raise RuntimeError("lost")
    assert store.read(name) == b"before"
    assert store.list() == [name]


def test_no_temporary_file_stays(tmp_path):
    written(Store(tmp_path), "a.csv", [ROWS])
    assert os.listdir(tmp_path) == ["a.csv"]


def test_endings():
    assert table_format("s3://x/y.PARQUET") == ".parquet"
    with pytest.raises(ValueError, match=r"ending of a\.txt '\.txt'.*Known: \.csv, \.jsonl, \.par"):
        table_format("a.txt")
    with pytest.raises(ValueError, match="ending of runs/demo ''"):
        table_format("runs/demo")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_takes_nothing_is_found_out_first(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with (
        pytest.raises(PermissionError, match="Cannot write to"),
        table_writer(f"{tmp_path}/a.csv", COLUMNS),
    ):
        raise AssertionError("no row is asked for")


def test_places_that_take_nothing_are_found_out_first(s3_server, tmp_path):
    (tmp_path / "file").write_text("")
    cases = [
        (f"{tmp_path}/file/a.csv", None, "Cannot write to"),
        ("s3://no-such-bucket/a.csv", s3_server, "No bucket 'no-such-bucket'"),
    ]
    for uri, endpoint_url, message in cases:
        with pytest.raises(OSError, match=message), table_writer(uri, COLUMNS, endpoint_url):
            raise AssertionError("no row is asked for")
