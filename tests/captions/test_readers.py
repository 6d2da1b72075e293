import bz2
import csv
import gzip
import json
import lzma
from pathlib import Path

import boto3
import moto
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2ipal.captions import Caption, read_captions, sources
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


def read(path: str | Path, **options) -> list[tuple[str, str]]:
    """Ids and texts of the usable rows."""
    return [(c.caption_id, c.caption) for c in read_captions(path, **options) if not c.reason]


KARPATHY = {
    "images": [
        {
            "filename": "a.jpg",
            "sentences": [{"raw": "A dog.", "sentid": 7}, {"raw": "Two cats", "sentid": 8}],
        },
        {"filename": "b.jpg", "sentences": []},
        None,
    ]
}
IMAGES = [("a.jpg#0", "A dog."), ("a.jpg#1", "A black dog."), ("b.jpg#0", "A cat.")]


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("laion.jsonl", '{"SAMPLE_ID": 4, "TEXT": "A dog."}', [("1", "A dog.")]),
        ("Caption.csv", "Image,Caption\n0.jpg,A dog .\n", [("1", "A dog .")]),
        ("k.json", json.dumps(KARPATHY), [("7", "A dog."), ("8", "Two cats")]),
        (
            "l.json",
            '[{"caption": ["a", "b"]}, {"text": "c"}]',
            [("1#0", "a"), ("1#1", "b"), ("2", "c")],
        ),
        ("m.json", '{"a.jpg": ["A dog.", "A black dog."], "b.jpg": ["A cat."]}', IMAGES),
        (
            "pandas.json",
            '{"url": {"0": "u", "1": "v"}, "text": {"0": "a", "1": "b"}}',
            [("1", "a"), ("2", "b")],
        ),
        (
            "sbu.json",
            '{"image_urls": ["u", "v"], "captions": ["a", "b"]}',
            [("1", "a"), ("2", "b")],
        ),
        ("lines.json", '{"caption": "a"}\n{"caption": "b"}\n', [("1", "a"), ("2", "b")]),
        ("text.json", '{"data": [{"caption_str": "a", "image_id": "x"}]}', [("1", "a")]),
        (
            "ids.csv",
            "id,caption\n1.0,a\n,b\n1,c\n1,c\n",
            [("1", "a"), ("row2", "b"), ("1#2", "c"), ("1#3", "c")],
        ),
        (
            "Flickr8k.token.txt",
            "a.jpg#0\tA dog.\na.jpg#1\tA black dog.\nb.jpg#0\tA cat.\n",
            IMAGES,
        ),
        ("f.token", "a.jpg#0\tA dog.\n", IMAGES[:1]),
        (
            "names.txt",
            "a.jpg,A dog, a cat\nb.png,A bus\n",
            [("a.jpg", "A dog, a cat"), ("b.png", "A bus")],
        ),
        (
            "kaggle.txt",
            'image,caption\na.jpg,A dog\nb.jpg,"A cat, asleep"\n',
            [("1", "A dog"), ("2", "A cat, asleep")],
        ),
        (
            "flickr30k.csv",
            "image_name| comment_number| comment\na.jpg| 0| A dog .\n",
            [("1", "A dog .")],
        ),
        ("excel.csv", "sep=;\nid;caption\n1;a dog, asleep\n", [("1", "a dog, asleep")]),
        (
            "cc3m.tsv",
            'A dog runs\thttp://e.org/1\n"A cat" sits\thttp://e.org/2\n',
            [("1", "A dog runs"), ("2", '"A cat" sits')],
        ),
        ("cc12m.tsv", "http://e.org/1\tA dog runs\n", [("1", "A dog runs")]),
        (
            "tatoeba.tsv",
            "77\teng\tA dog runs.\n78\teng\tA cat.\n",
            [("1", "A dog runs."), ("2", "A cat.")],
        ),
        (
            "lists.csv",
            "image,raw\na.jpg,\"['a dog', 'a cat']\"\n",
            [("1#0", "a dog"), ("1#1", "a cat")],
        ),
        (
            "numbered.csv",
            "image,caption_0,caption_1\na.jpg,a dog,a cat\n",
            [("1#0", "a dog"), ("1#1", "a cat")],
        ),
        (
            "sentences.csv",
            "a dog runs fast\na cat sits here\n",
            [("1", "a dog runs fast"), ("2", "a cat sits here")],
        ),
        ("mac.txt", "a dog\ra cat\r", [("1", "a dog"), ("2", "a cat")]),
        (
            "odd.txt",
            "a dog\r\r\na cat\u2028a bus\x85a car",
            [("1", "a dog"), ("2", "a cat"), ("3", "a bus"), ("4", "a car")],
        ),
        ("mac.csv", "caption\ra dog\ra cat\r", [("1", "a dog"), ("2", "a cat")]),
        (
            "mac.jsonl",
            '{"caption": "a dog"}\r{"caption": "a\u2028cat"}',
            [("1", "a dog"), ("2", "a\u2028cat")],
        ),
        ("rows.ndjson", '{"caption": "a dog"}', [("1", "a dog")]),
        ("rows.jsonl.gz", gzip.compress(b'{"caption": "a dog"}'), [("1", "a dog")]),
        ("rows.txt.bz2", bz2.compress(b"a dog"), [("1", "a dog")]),
        ("rows.csv.xz", lzma.compress(b"text\na dog"), [("1", "a dog")]),
        ("hidden.csv", gzip.compress(b"text\na dog"), [("1", "a dog")]),
        ("utf16.csv", "caption\na caf\xe9 dog\n".encode("utf-16"), [("1", "a caf\xe9 dog")]),
        ("utf16.txt", "a dog\r\na cat".encode("utf-16-be"), [("1", "a dog"), ("2", "a cat")]),
        ("latin.csv", "caption\na caf\xe9 dog\n".encode("latin-1"), [("1", "a caf\xe9 dog")]),
    ],
)
def test_files_of_the_field(tmp_path, name, content, rows):
    assert read(write(tmp_path, name, content)) == rows


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ({"TEXT": ["a", None], "SAMPLE_ID": [1.0, 2.0]}, [("1", "a")]),
        (
            {"id": [1.0, None, 3.5], "caption": ["a", "b", "c"]},
            [("1", "a"), ("row2", "b"), ("3.5", "c")],
        ),
        ({"caption": [["a", "b"], [], ["c"]]}, [("1#0", "a"), ("1#1", "b"), ("3#0", "c")]),
        (
            {"sentences": [{"raw": "a", "sentid": 7}, {"raw": "b", "sentid": 8}]},
            [("7", "a"), ("8", "b")],
        ),
        (
            {"sentences": [[{"raw": "a", "sentid": 7}, {"raw": "b", "sentid": 8}]]},
            [("7", "a"), ("8", "b")],
        ),
        ({"text": [b"a", b"\xff"]}, [("1", "a")]),
    ],
)
def test_parquet_of_the_field(tmp_path, columns, rows):
    path = tmp_path / "00000.parquet"
    pq.write_table(pa.table(columns), path)
    assert read(path) == rows


def test_a_bad_row_is_one_rejected_caption(tmp_path):
    table = 'id,caption\n1,a dog\n2,"x"y\n3,"a cat\n4,a bus\n5,a,b\n6\n'
    rows = [(c.caption_id, c.reason) for c in read_captions(write(tmp_path, "a.csv", table))]
    quote = "a quotation mark that is not closed, or has text behind it"
    assert rows[:4] == [("1", ""), ("2", quote), ("3", quote), ("4", "")]
    assert rows[4][1].startswith("3 fields where the first line has 2")
    assert rows[5] == ("6", "no caption")
    lines = '{"caption": "a"}\n{"cap\n5\n{"caption": 5}\n{"x": 1}\n{"caption": "\\ud800"}\nnull\n'
    found = read_captions(write(tmp_path, "a.jsonl", lines))
    reasons = [caption.reason.partition(":")[0] for caption in found]
    assert reasons == [
        "",
        "no valid JSON",
        "no caption",
        "no text",
        "no caption or text, only x",
        "half a character, or a byte that is no UTF-8",
        "no caption",
    ]
    mixed = "caption\na caf\xe9 dog\n".encode() + b"a caf\xe9 cat\n"
    assert read(write(tmp_path, "b.csv", mixed)) == [("1", "a caf\xe9 dog")]


def test_a_row_that_comes_twice_is_taken_once(tmp_path):
    found = list(read_captions(write(tmp_path, "a.csv", "id,text\n7,a\n7,b\n7,a\n")))
    assert [(c.caption_id, c.reason) for c in found] == [
        ("7", ""),
        ("7#2", ""),
        ("7#3", "the same row twice"),
    ]


def test_quotation_marks_swallow_no_rows(tmp_path):
    rows = 'url\tcaption\nu/1\t"a dog\nu/2\ttwo cats\nu/3\ta bus"\nu/4\ta boat\n'
    assert [text for _, text in read(write(tmp_path, "cc.tsv", rows))] == [
        *('"a dog', "two cats", 'a bus"', "a boat"),
    ]
    excel = 'id\tcaption\n1\t"He says ""hi"" to a dog"\n2\t"two\nlines"\n3\tx\n'
    assert read(write(tmp_path, "excel.tsv", excel)) == [
        ("1", 'He says "hi" to a dog'),
        ("2", "two\nlines"),
        ("3", "x"),
    ]
    several = (
        'image,caption\n1.jpg,"A dog, running\nin the snow, happy"\n2.jpg,"a cat\n3.jpg,a bus"\n'
    )
    assert read(write(tmp_path, "a.csv", several)) == [
        ("1", "A dog, running\nin the snow, happy"),
        ("3", 'a bus"'),
    ]


def test_columns_by_name_and_number(tmp_path):
    path = write(tmp_path, "a.csv", "Key,Words,caption\nk1,a dog,no\n")
    assert read(path, caption_column="words", id_column="Key") == [("k1", "a dog")]
    path = write(tmp_path, "a.tsv", "a\tb\nc\td\n")
    assert read(path, caption_column="2", id_column="1") == [("a", "b"), ("c", "d")]
    path = write(tmp_path, "a.txt", "words\na dog\na cat\n")
    assert read(path, caption_column="words") == [("1", "a dog"), ("2", "a cat")]
    path = write(tmp_path, "a.jsonl", '{"uid": "u", "re_caption": "a dog", "caption": "no"}')
    assert read(path, caption_column="re_caption", id_column="uid") == [("u", "a dog")]
    pq.write_table(pa.table({"uid": ["u"], "words": ["a dog"]}), tmp_path / "a.parquet")
    options = {"caption_column": "words", "id_column": "uid"}
    assert read(tmp_path / "a.parquet", **options) == [("u", "a dog")]
    with pytest.raises(ValueError, match=r"Unknown caption_column .*'word'\. Did you mean 'words'"):
        read(tmp_path / "a.parquet", caption_column="word")


def test_several_files(tmp_path, monkeypatch):
    for name, text in (("s-0.jsonl", "a dog"), ("s-1.jsonl", "a cat"), ("note.txt", "a bus")):
        write(tmp_path, name, json.dumps({"caption": text}) if "json" in name else text)
    both = [("s-0/1", "a dog"), ("s-1/1", "a cat")]
    monkeypatch.chdir(tmp_path)
    assert read(["s-0.jsonl", tmp_path / "s-1.jsonl"]) == both
    assert read("s-*.jsonl") == both
    assert read(["s-?.jsonl", "s-0.jsonl"]) == both
    with pytest.raises(ValueError, match=r"several formats \(\.jsonl, \.txt\)"):
        read(".")
    (tmp_path / "note.txt").unlink()
    assert read(".") == both
    with pytest.raises(FileNotFoundError, match="No file matches t-"):
        read("t-*.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"No caption file .* in the folder empty"):
        read("empty")


def test_several_files_of_a_bucket(s3_server):
    store = Store("s3://runs/shards", s3_server)
    for at in range(2):
        store.write(f"s-{at}.txt", f"text {at}".encode())
    for uri in ("s3://runs/shards", "s3://runs/shards/", "s3://runs/shards/s-*.txt"):
        assert read(uri, endpoint_url=s3_server) == [("s-0/1", "text 0"), ("s-1/1", "text 1")]


def test_what_was_guessed_is_told(tmp_path):
    told: list[str] = []
    path = write(tmp_path, "a.csv", b"uid,TEXT\n1,a caf\xe9\n2\n")
    list(read_captions(path, tell=told.append))
    assert told == [
        f"{path} is no UTF-8 (byte 0xe9 in line 2): read as Windows-1252.",
        f"1 captions of {path} (caption: TEXT; id: the row's number).",
        f"1 rows hold no usable caption; the first: {path}, line 3: no caption.",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"annotations": [', r"no valid JSON: .*line 1 column"),
        ("a.json", '{"images": 3}', 'must be captions: MS-COCO\'s with a list "annotations"'),
        ("a.json", '{"images": []}', "holds no caption"),
        (
            "a.json",
            coco({"id": 1, "bbox": []}),
            r"annotations\[0\]: no caption or text, only id, bbox",
        ),
        ("a.json", coco(5), r"annotations\[0\]: no caption: 5"),
        ("a.json", coco({"id": 1, "caption": 5}), r"annotations\[0\]: no text: 5"),
        ("a.json", coco(), "holds no caption"),
        ("a.jsonl", "\n", "holds no caption"),
        ("a.csv", "", "holds no caption"),
        ("a.csv", "caption\n", "holds no caption"),
        ("a.csv", "id,words\n1,x\n", "must have a column caption or text, got id, words"),
        ("a.csv", "id,caption\n1\n", "line 2: no caption"),
        ("a.txt", " \n", "holds no caption"),
        ("a.txt", b"\xff\xfe\x00", "damaged UTF-16"),
        ("a.txt", b"\xff\x00\xd8\x00\x01", "must be text, got byte 0"),
        ("a.txt", b"PK\x03\x04..", "got a zip archive or an Excel table"),
        ("a.json", "<!DOCTYPE html>", "got a web page"),
        ("a.jsonl.gz", gzip.compress(b'{"caption": "x"}')[:-4], "damaged gz file"),
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
    with pytest.raises(ValueError, match="must have a column caption or text, got words"):
        read_captions(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.json", "b/a.txt", "a.parquet"])
def test_missing_file(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="a\\."):
        read_captions(tmp_path / name)
    assert not (tmp_path / "b").exists()


def test_every_image_of_karpathys_json_is_read_alike(tmp_path):
    images = [
        {"filename": f"{name}.jpg", "cocoid": number, "sentences": [{"raw": f"A {name}."}]}
        for number, name in enumerate(("dog", "cat", "cow"))
    ]
    (tmp_path / "k.json").write_text(json.dumps({"images": images}))
    found = [*read_captions(tmp_path / "k.json")]
    assert [c.caption for c in found] == ["A dog.", "A cat.", "A cow."]
    assert [c.caption_id for c in found] == ["dog.jpg#0", "cat.jpg#0", "cow.jpg#0"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_file_made_to_fill_a_memory(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(sources, "MANY_BYTES", 200_000)
    (tmp_path / "a.txt.xz").write_bytes(pack(b"a dog\n" * 50_000))
    with pytest.raises(
        ValueError, match=r"a\.txt\.xz is a damaged .* it unpacks to more than 200,000"
    ):
        read_captions(tmp_path / "a.txt.xz")
    (tmp_path / "a.txt.xz").write_bytes(pack(b"a dog\n" * 20_000))
    assert len(list(read_captions(tmp_path / "a.txt.xz"))) == 20_000
