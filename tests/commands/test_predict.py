import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_recognizer import write_photographs
from small_run import write_small_run
from tiny_clip import VIT, write_tiny_clip

from t2ipal.commands import evaluate, predict, train
from t2ipal.pictovoc.scenes import CLASS_NAMES
from t2ipal.pictovoc.worlds import world_scenes
from t2ipal.store import Store

ROOT = Path(__file__).parents[2]
COCO = ROOT.parent / "shared" / "data" / "coco" / "val2017"
KEYS = ["0.png", "1.png", "2.png", "3-broken.JPG", "3.png", "4.png", "5.png", "6.png"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two seeds trained for an epoch on a tiny CLIP."""
    folder = tmp_path_factory.mktemp("run")
    write_small_run(folder / "run")
    model = str(write_tiny_clip(folder / "clip", VIT))
    arguments = ["--run", str(folder / "run"), "--model", model, "--num-workers", "0"]
    changes = ["--set", "training.num_epochs=1"]
    train.main([*arguments, "--methods", "t2ipal", "--seeds", "0", "1", *changes])
    return folder / "run"


@pytest.fixture
def photographs(store):
    write_photographs(store)
    return store


def words(run, images, output, *more, seeds=(0,)):
    """The job's arguments; a bucket is on the server that the store knows."""
    recognizers = [str(run / "train" / f"t2ipal-seed{seed}") for seed in seeds]
    server = ["--endpoint-url", images.endpoint_url] if images.endpoint_url else []
    uri = f"{images.uri}/{output}"
    places = ["--recognizer", *recognizers, "--images", images.uri, "--output", uri]
    return [*places, *server, "--in-process", *more]


def test_json_lines_and_a_sheet(run, photographs, capsys):
    sheet = f"{photographs.uri}/sheet/a.html"
    summary = predict.main(words(run, photographs, "out/a.jsonl", "--html", sheet))
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1]) == summary
    assert summary["output"] == f"{photographs.uri}/out/a.jsonl" and summary["html"] == sheet
    assert (summary["num_images"], summary["num_failed"]) == (8, 1)
    assert summary["seconds"] > 0 and summary["images_per_second"] > 0
    assert "1 of 8 photographs failed, the first is 3-broken.JPG (not an image)." in captured.err
    rows = [json.loads(line) for line in photographs.read("out/a.jsonl").splitlines()]
    assert [row["file"] for row in rows] == KEYS
    for row in rows:
        names = ["file", "labels", "scores", "width", "height", "status", "reason"]
        assert list(row) == names
        good = row["status"] == "ok"
        assert len(row["labels"]) == len(row["scores"]) == 3 * good
        assert {*row["labels"]} <= {*CLASS_NAMES}
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert (row["width"] > 0) == good == (row["reason"] == "")
    page = photographs.read("sheet/a.html").decode()
    assert page.count("data:image/jpeg") == 7 and "Could not be read" in page
    assert all(key in page for key in KEYS) and "<script" not in page


def test_what_is_not_read_says_what_to_do(run, tmp_path):
    write_photographs(Store(tmp_path), 1)
    (tmp_path / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert predict.main(words(run, Store(tmp_path), "a.jsonl"))["num_failed"] == 2
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    reasons = {row["file"]: row["reason"] for row in rows}
    assert reasons["phone.HEIC"] == "HEIC, which is not read here: save it as JPEG or PNG"


def test_the_same_in_every_format(run, photographs):
    more = ["--all-scores", "--top-k", "2", "--recursive"]
    for ending in ("jsonl", "csv", "parquet"):
        predict.main(words(run, photographs, f"out.{ending}", *more))
    lines = [json.loads(line) for line in photographs.read("out.jsonl").splitlines()]
    table = pq.ParquetFile(io.BytesIO(photographs.read("out.parquet"))).read()
    assert table.to_pylist() == lines
    assert [line["file"] for line in lines] == [*KEYS, "below/deep.png"]
    assert list(lines[0])[7:] == [f"score_{name}" for name in CLASS_NAMES]
    text = photographs.read("out.csv").decode()
    for line, row in zip(lines, csv.DictReader(io.StringIO(text)), strict=True):
        assert row["labels"].split(";") == (line["labels"] or [""])
        assert [float(score) for score in row["scores"].split(";") if score] == line["scores"]
        assert row["status"] == line["status"] and int(row["width"]) == line["width"]
        score = line["score_dog"]
        assert row["score_dog"] == ("" if score is None else str(score))
    best = max(CLASS_NAMES, key=lambda name: lines[0][f"score_{name}"])
    assert lines[0]["labels"][0] == best


def test_several_seeds_give_their_mean(run, tmp_path):
    images = Store(tmp_path)
    write_photographs(images, 3)
    for name, seeds in (("a", [0]), ("b", [1]), ("both", [0, 1])):
        predict.main(words(run, images, f"{name}.jsonl", "--all-scores", seeds=seeds))
    first, second, both = (
        [json.loads(line) for line in images.read(f"{name}.jsonl").splitlines()]
        for name in ("a", "b", "both")
    )
    assert first != second
    for row, other, mean in zip(first, second, both, strict=True):
        if mean["status"] == "ok":
            middle = (row["score_cat"] + other["score_cat"]) / 2
            assert mean["score_cat"] == pytest.approx(middle, abs=2e-6)


def test_a_recognizer_in_a_bucket(run, s3_server, tmp_path):
    bucket = Store(f"s3://runs/{tmp_path.name}", s3_server)
    folder = run / "train" / "t2ipal-seed0"
    for path in folder.iterdir():
        bucket.write(f"recognizer/{path.name}", path.read_bytes())
    write_photographs(Store(tmp_path), 2)
    arguments = ["--images", str(tmp_path / "1.png"), "--in-process", "--endpoint-url", s3_server]
    for name, place in (("local", str(folder)), ("far", f"{bucket.uri}/recognizer/")):
        output = str(tmp_path / f"{name}.jsonl")
        summary = predict.main(["--recognizer", place, "--output", output, *arguments])
        assert summary["num_images"] == 1
    assert (tmp_path / "far.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()


def test_at_most_so_many_pictures(run, tmp_path):
    write_photographs(Store(tmp_path))
    more = ["--html", str(tmp_path / "a.html"), "--html-images", "2", "--min-score", "1e9"]
    predict.main(words(run, Store(tmp_path), "a.csv", *more))
    page = (tmp_path / "a.html").read_text()
    assert page.count("data:image/jpeg") == page.count("no label</p>") == 2


@pytest.mark.skipif(not COCO.is_dir(), reason=f"no MS-COCO photographs in {COCO}")
def test_real_photographs(run, tmp_path):
    arguments = words(run, Store(COCO), "", "--batch-size", "10")
    arguments[arguments.index("--output") + 1] = str(tmp_path / "a.parquet")
    summary = predict.main(arguments)
    assert (summary["num_images"], summary["num_failed"]) == (len(list(COCO.glob("*.jpg"))), 0)
    for row in pq.read_table(tmp_path / "a.parquet").to_pylist():
        with Image.open(COCO / row["file"]) as image:
            assert (row["width"], row["height"]) == image.size


def test_a_corrected_table_is_a_test_set(run, tmp_path, capsys):
    """What was predicted, looked through by a person, measures the recognizers."""
    images, labels = world_scenes("pictovoc")
    for index in range(150):
        Image.fromarray(images[index]).save(tmp_path / f"{index:03d}.png")
    predict.main(words(run, Store(tmp_path), "predicted.csv"))
    header, *rows = csv.reader((tmp_path / "predicted.csv").open())
    for row, truth in zip(rows, labels, strict=False):
        row[1] = ";".join(CLASS_NAMES[index] for index in truth.nonzero()[0])
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    shutil.copytree(run, tmp_path / "run")
    capsys.readouterr()
    model = str(run.parent / "clip")
    arguments = ["--run", str(tmp_path / "run"), "--model", model, "--test-set"]
    result = evaluate.main([*arguments, str(tmp_path)])
    assert "150 photographs, labelled by" in capsys.readouterr().err
    assert result["num_images"] == 150 and result["test_set"] == str(tmp_path)
    assert result["class_names"] == list(CLASS_NAMES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--html": "{run}"}, r"Cannot write .*/run \(Is a directory\)"),
        ({"--output": "{run}/train/t2ipal-seed0/history.json/a.csv"}, r"Cannot write to .*history"),
        ({"--output": "a.txt"}, r"Unknown ending of .*a.txt '.txt'"),
        ({"--recognizer": "{run}"}, r"holds 2 recognizers .*train/t2ipal-seed0, "),
        ({"--recognizer": "{run}/none"}, r"No recognizer in .*none\. Run jobs/train.py first"),
        ({"--images": "{run}/none"}, r"No photograph .* in .*/none"),
        ({"--model": "{run}"}, r"The backbone of .* is not at .*run, where it was"),
        ({"--html-images": "0"}, r"html_images must be > 0, got 0"),
        ({"--top-k": "0"}, r"top_k must be > 0, got 0"),
        ({"--device": "nonsense"}, r"device 'nonsense' cannot be used here"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, tmp_path, changes, message):
    write_photographs(Store(tmp_path), 1)
    arguments = words(run, Store(tmp_path), "a.csv")
    for name, value in changes.items():
        if name in arguments:
            arguments[arguments.index(name) + 1] = value.format(run=run)
        else:
            arguments += [name, value.format(run=run)]
    with pytest.raises((ValueError, OSError), match=message):
        predict.main(arguments)
    assert not (tmp_path / "a.csv").exists()


def test_the_launcher_answers_at_once():
    code = "import sys, runpy; sys.argv = ['predict', '--help']\n"
    code += f"sys.path.insert(0, {str(ROOT / 'jobs')!r})\n"
    code += f"try: runpy.run_path({str(ROOT / 'jobs' / 'predict.py')!r}, run_name='__main__')\n"
    code += "except SystemExit: assert not {'torch', 'ray', 'open_clip'} & {*sys.modules}\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--min-score" in done.stdout and "status (ok or failed)" in done.stdout
