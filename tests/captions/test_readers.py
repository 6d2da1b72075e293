import csv
import json
from pathlib import Path

import boto3
import moto
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2ipal.captions import Caption, read_captions
from t2ipal.store import Store

TWO = [Caption("7", "A dog."), Caption("9", "Two cats, sleeping")]


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def coco(*rows: object) -> str:
    return json.dumps({"annotations": list(rows)})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "a.json",
            coco(
                {"id": 7, "image_id": 1, "caption": "A dog.\n"},
                {"id": 9, "image_id": 1, "caption": "Two cats, sleeping"},
            ),
        ),
        (
            "a.jsonl",
            '{"id": 7, "caption": "A dog."}\n\n{"id": "9", "text": "Two cats, sleeping"}\n',
        ),
        ("a.csv", 'caption_id,caption\n7,A dog.\n9,"Two cats, sleeping"\n'),
        ("a.CSV", '\ufeffx,id,text\r\n,7,A dog.\r\n,9,"Two cats, sleeping"\r\n'),
        ("a.tsv", "id\tcaption\n7\tA dog.\n9\tTwo cats, sleeping\n"),
    ],
)
def test_formats(tmp_path, name, content):
    assert list(read_captions(write(tmp_path, name, content))) == TWO


def test_ids_without_a_column_are_row_numbers(tmp_path):
    assert list(read_captions(write(tmp_path, "a.csv", "caption\na\nb\n"))) == [
        Caption("1", "a"),
        Caption("2", "b"),
    ]
    assert list(read_captions(write(tmp_path, "a.txt", "a\r\n\n  b  \n"))) == [
        Caption("1", "a"),
        Caption("3", "b"),
    ]


def test_localized_narratives(tmp_path):
    rows = [
        {"dataset_id": "open_images", "image_id": "f0", "annotator_id": 3, "caption": "one"},
        {"dataset_id": "open_images", "image_id": "f0", "annotator_id": 4, "caption": "two"},
        {"dataset_id": "open_images", "image_id": "f0", "annotator_id": 3, "caption": "three"},
    ]
    path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert [caption.caption_id for caption in read_captions(path)] == ["f0/3", "f0/4", "f0/3#2"]


@pytest.mark.parametrize("columns", [("caption_id", "caption"), ("id", "text")])
def test_parquet(tmp_path, columns):
    path = tmp_path / "a.parquet"
    values = ([7, 9], [caption.caption for caption in TWO])
    pq.write_table(pa.table(dict(zip(columns, values, strict=True))), path)
    assert list(read_captions(path)) == TWO
    pq.write_table(pa.table({columns[1]: values[1]}), path)
    assert [caption.caption_id for caption in read_captions(path)] == ["1", "2"]


def test_s3(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with moto.mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="captions")
        client.put_object(Bucket="captions", Key="a/b.txt", Body=b"A dog.")
        assert list(read_captions("s3://captions/a/b.txt")) == [Caption("1", "A dog.")]
        with pytest.raises(FileNotFoundError, match=r"a/c\.txt"):
            read_captions("s3://captions/a/c.txt")


def test_s3_of_another_server(s3_server, tmp_path):
    pq.write_table(
        pa.table({"id": [7, 9], "text": [c.caption for c in TWO]}), tmp_path / "a.parquet"
    )
    files = {
        "a.csv": b'id,caption\n7,A dog.\n9,"Two cats, sleeping"\n',
        "a.parquet": (tmp_path / "a.parquet").read_bytes(),
    }
    for name, content in files.items():
        Store("s3://runs/captions", s3_server).write(name, content)
        assert list(read_captions(f"s3://runs/captions/{name}", s3_server)) == TWO


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"annotations": [', r"no valid JSON: .*line 1 column"),
        ("a.json", "[1, 2]", 'must be MS-COCO captions with a list "annotations"'),
        ("a.json", '{"images": []}', 'must be MS-COCO captions with a list "annotations"'),
        ("a.json", coco({"id": 1, "bbox": []}), r"annotations\[0\] has no caption, only id, bbox"),
        ("a.json", coco({"caption": "x"}), r"annotations\[0\] has no id"),
        ("a.json", coco("x"), r"annotations\[0\] must be a mapping, got 'x'"),
        ("a.json", coco({"id": 1, "caption": 5}), "caption must be a text, got 5"),
        (
            "a.json",
            coco({"id": 1.5, "caption": "x"}),
            "an id must be a whole number or a text, got 1.5",
        ),
        ("a.json", coco(*[{"id": 1, "caption": "x"}] * 2), "caption id '1' occurs twice"),
        ("a.json", coco(), "holds no caption"),
        ("a.jsonl", '{"caption": "x"}\n{"caption": \n', "line 2 is no valid JSON"),
        ("a.jsonl", '{"caption": "x"}\n["y"]\n', "line 2 must be a mapping"),
        ("a.jsonl", "\n", "holds no caption"),
        ("a.csv", "", "holds no caption"),
        ("a.csv", "caption\n", "holds no caption"),
        (
            "a.csv",
            "id,words\n1,x\n",
            "must name a column caption or text in its first line, got id, words",
        ),
        ("a.csv", "id,caption\n1\n", "line 2: caption must be a text, got None"),
        ("a.csv", "id,caption\n,x\n", "line 2: an id must be a whole number or a text, got ''"),
        ("a.csv", 'id,caption\n1,"x"y\n', "line 2 is no valid CSV"),
        ("a.txt", " \n", "holds no caption"),
        ("a.txt", b"\xff\xfe\x00", "must be UTF-8 text"),
        (
            "a.parquet",
            b"PAR1 not really",
            r"a\.parquet: This is not a parquet file, or not all of it",
        ),
        ("a.jsn", "{}", "Unknown suffix .* Did you mean '.json'"),
    ],
)
def test_bad_file(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        read_captions(write(tmp_path, name, content))


def test_a_csv_field_of_any_length_is_read(tmp_path):
    """So that the filter rejects it alone, as in other formats."""
    long, limit = "a dog " * 30_000, csv.field_size_limit()
    path = write(tmp_path, "a.csv", f"caption\n{long}\na cat\n")
    assert [caption.caption for caption in read_captions(path)] == [long.strip(), "a cat"]
    assert csv.field_size_limit() == limit


def test_parquet_without_captions(tmp_path):
    pq.write_table(pa.table({"words": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="must be parquet with a column caption or text"):
        read_captions(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.json", "b/a.txt", "a.parquet"])
def test_missing_file(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="a\\."):
        read_captions(tmp_path / name)
    assert not (tmp_path / "b").exists()
