"""Captions and settings that a synthesis cannot use: each is named, and nothing is lost."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from painter import Painter, contents, refusal

from t2ipal.commands import choose, repair, status, synthesize
from t2ipal.store import Store, read_rejected

ROOT = Path(__file__).parents[2]
SYNTHESIZE = "--captions right.txt --output run --in-process --images-per-shard 2"
JOBS = {
    "synthesize": (synthesize.main, SYNTHESIZE),
    "status": (status.main, "--run run"),
    "choose": (choose.main, "--run run --in-process"),
    "repair": (repair.main, "--run run --in-process"),
}
ROW = '{"id": 1, "caption": "a dog"}'


def coco(*rows):
    return json.dumps({"annotations": rows})


def parquet(**columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def damaged_parquet():
    data = bytearray(parquet(caption=[f"a dog {number * number}" for number in range(3000)]))
    data[100:200] = b"\xff" * 100
    return bytes(data)


CAPTIONS = [
    (
        "cut.json",
        coco({"id": 1, "caption": "a dog"})[:40],
        " is no valid JSON: Unterminated string starting at: line 1 column 39 (char 38).",
    ),
    (
        "cut.parquet",
        parquet(caption=["a dog"])[:300],
        ": This is not a parquet file, or not all of it.",
    ),
    ("damaged.parquet", damaged_parquet(), ": This parquet file is damaged."),
    (
        "packed.csv",
        b"PK\x03\x04...",
        " must be text, got a zip archive or an Excel table. Unpack it, or save it as CSV.",
    ),
    ("table.csv", parquet(caption=["a dog"]), " must be text, got parquet. Name it .parquet."),
    (
        "pointer.txt",
        "version https://git-lfs.github.com/spec/v1\n",
        " must be text, got a pointer of git LFS. Run `git lfs pull`.",
    ),
    (
        "deep.json",
        "[" * 100_000,
        " is no valid JSON: maximum recursion depth exceeded while decoding a JSON array from a "
        "unicode string.",
    ),
    ("empty.json", "", " holds no caption."),
    ("empty.jsonl", "\n \n", " holds no caption."),
    ("empty.parquet", b"", ": This is not a parquet file, or not all of it."),
    (
        "names.parquet",
        parquet(words=["a dog"]),
        " must have a column caption or text, got words. Name the column of the texts with "
        "--caption-column.",
    ),
    (
        "number.parquet",
        parquet(caption=[5]),
        " holds no caption. The first row: number.parquet, row 1: no text: 5.",
    ),
]
"""Name and content of a caption file, and the message after its name."""

REJECTED = [
    ("zero.txt", "a cat\na dog\0 on a boat\n", "control character"),
    ("zero.csv", "id,caption\n1,a cat\n2,a d\0og\n", "control character"),
    (
        "zero.json",
        coco({"id": 1, "caption": "a cat"}, {"id": 2, "caption": "a d?og"}).replace("?", "\0"),
        "control character",
    ),
    (
        "long.json",
        coco({"id": 1, "caption": "a cat"}, {"id": 2, "caption": "a dog " * 17_000}),
        "too long",
    ),
    ("blank.jsonl", '{"id": 1, "caption": "a cat"}\n{"id": 2, "caption": " "}\n', "empty"),
    (
        "cut.jsonl",
        ROW + '\n{"id": 2, "capt',
        "no valid JSON: Unterminated string starting at: line 1 column 11 (char 10)",
    ),
    (
        "cut.csv",
        'id,caption\n1,a dog\n2,"two ca',
        "a quotation mark that is not closed, or has text behind it",
    ),
    (
        "more.csv",
        "id,caption\n1,a dog\n2,a dog, on a boat\n",
        "3 fields where the first line has 2; put a caption with ',' into double quotes",
    ),
    ("less.csv", "id,caption\n1,a dog\n2\n", "no caption"),
    (
        "half.json",
        r'{"annotations": [{"id": 1, "caption": "a cat"}, {"id": 2, "caption": "\ud800"}]}',
        "half a character, or a byte that is no UTF-8",
    ),
]
"""Files whose second caption is no sentence: it is stored with its reason, the first one drawn."""

SETTINGS = [
    ("synthesize", "--guidance-scale nan", "guidance_scale must be finite, got nan."),
    ("synthesize", "--guidance-scale inf", "guidance_scale must be finite, got inf."),
    ("synthesize", "--guidance-until 0", "guidance_until must be > 0 and <= 1, got 0.0."),
    ("synthesize", "--guidance-until 1.01", "guidance_until must be > 0 and <= 1, got 1.01."),
    ("synthesize", "--guidance-until nan", "guidance_until must be finite, got nan."),
    ("synthesize", "--composition -0.5", "composition must be >= 0, got -0.5."),
    ("synthesize", "--composition nan", "composition must be finite, got nan."),
    ("synthesize", "--composition inf", "composition must be finite, got inf."),
    (
        "synthesize",
        "--negative-prompt text --guidance-scale 1",
        "negative_prompt needs guidance: guidance_scale must be > 1, got 1.0.",
    ),
    ("synthesize", "--batch-size 0", "batch_size must be > 0, got 0."),
    ("synthesize", "--jpeg-quality 101", "jpeg_quality must be in 1..100, got 101."),
    ("synthesize", "--image-size-px 63", "image_size_px must be a positive multiple of 8, got 63."),
    ("synthesize", "--images-per-caption -1", "images_per_caption must be > 0, got -1."),
    ("synthesize", "--images-per-shard -2", "images_per_shard must be > 0, got -2."),
    ("synthesize", "--min-workers 0", "min_workers must be > 0, got 0."),
    ("synthesize", "--max-workers -1", "max_workers must be > 0, got -1."),
    (
        "synthesize",
        "--min-workers 3 --max-workers 2",
        "min_workers must be <= max_workers, got 3 > 2.",
    ),
    ("synthesize", "--cpus-per-worker 0", "cpus_per_worker must be > 0, got 0."),
    ("synthesize", "--gpus-per-worker -0.5", "gpus_per_worker must be >= 0, got -0.5."),
    ("synthesize", "--gpus-per-worker nan", "gpus_per_worker must be finite, got nan."),
    ("synthesize", "--gpus-per-worker inf", "gpus_per_worker must be finite, got inf."),
    ("synthesize", "--max-failed-fraction -0.1", "max_failed_fraction must be in 0..1, got -0.1."),
    ("synthesize", "--max-failed-fraction 1.1", "max_failed_fraction must be in 0..1, got 1.1."),
    ("synthesize", "--max-failed-fraction nan", "max_failed_fraction must be finite, got nan."),
    ("status", "--watch nan", "watch must be > 0, got nan."),
    ("status", "--watch inf", "watch must be finite, got inf."),
    ("status", "--price-per-gpu-hour nan", "price_per_gpu_hour must be >= 0, got nan."),
    ("status", "--price-per-gpu-hour inf", "price_per_gpu_hour must be finite, got inf."),
    (
        "choose",
        "--name a/b",
        "A choice's name must be one word of letters, digits, - and _, got 'a/b'.",
    ),
    ("choose", "--min-found nan", "min_found must be finite, got nan."),
    ("choose", "--best 0", "best must be > 0, got 0."),
    (
        "repair",
        "--name a/b",
        "A choice's name must be one word of letters, digits, - and _, got 'a/b'.",
    ),
    ("repair", "--budget -1", "budget must be >= 0, got -1."),
    ("repair", "--min-found 1.5", "min_found must be in 0..1, got 1.5."),
    ("repair", "--rounds -1", "rounds must be > 0, got -1."),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with a finished run, and caption files right and wrong."""
    folder = tmp_path_factory.mktemp("input")
    (folder / "right.txt").write_text("a dog on a boat\ntwo cats\na bus\na horse\n")
    for name, content, _ in [*CAPTIONS, *(("rejected-" + row[0], *row[1:]) for row in REJECTED)]:
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
    (folder / "folder.json").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("t2ipal.diffusion.synthesizer.Synthesizer", Painter)
        synthesize.main(SYNTHESIZE.split())
    return folder


def refused(folder, monkeypatch, job, changes):
    """The message of a job that must fail and change nothing."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("t2ipal.diffusion.synthesizer.Synthesizer", Painter)
    before = contents(folder)
    shown = refusal(*JOBS[job], changes)
    assert contents(folder) == before
    return shown


@pytest.mark.parametrize(("name", "message"), [(name, message) for name, _, message in CAPTIONS])
def test_a_caption_file_that_cannot_be_read_whole(folder, monkeypatch, name, message):
    assert refused(folder, monkeypatch, "synthesize", f"--captions {name}") == name + message


def test_a_folder_in_place_of_a_caption_file(folder, monkeypatch):
    message = refused(folder, monkeypatch, "synthesize", "--captions folder.json")
    assert message.startswith("No caption file (.json, ")
    assert message.endswith(") in the folder folder.json.")


@pytest.mark.parametrize(("name", "content", "reason"), REJECTED, ids=[row[0] for row in REJECTED])
def test_a_caption_that_is_no_sentence(folder, monkeypatch, tmp_path, name, content, reason):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("t2ipal.diffusion.synthesizer.Synthesizer", Painter)
    captions = ["--captions", f"rejected-{name}", "--output", str(tmp_path / "new")]
    summary = synthesize.main([*captions, "--in-process"])
    assert (summary["num_captions"], summary["num_rejected"]) == (1, 1)
    (row,) = read_rejected(Store(tmp_path / "new"))
    assert (row.caption_id, row.reason) == ("2", reason)


@pytest.mark.parametrize(("job", "changes", "message"), SETTINGS)
def test_a_setting_out_of_its_range(folder, monkeypatch, job, changes, message):
    assert refused(folder, monkeypatch, job, changes) == message


def test_the_command_line_says_it_in_one_line(folder):
    before, given = contents(folder), f"{SYNTHESIZE} --captions cut.json"
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs/synthesize.py"), *given.split()],
        capture_output=True, text=True, cwd=folder, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: cut.json is no valid JSON: Unterminated string starting at: line 1 column 39 "
        "(char 38).\n"
    )
    assert contents(folder) == before
