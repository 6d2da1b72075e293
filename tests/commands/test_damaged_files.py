"""Damaged and odd files of every kind that the jobs read: success, or one line that says where."""

import csv
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import damaged
from painter import Painter
from PIL import Image
from small_run import write_small_run
from tiny_clip import write_tiny_clip

from t2ipal.captions import load_vocabulary
from t2ipal.commands import choose, evaluate, predict, report, status, synthesize, train, tune
from t2ipal.commands.running import run_job

VOC_CLASSES = load_vocabulary("voc2007").class_names
TEXTS = ("a dog on a boat", "two cats", "a red house", "a bus", "a horse and a cow", 'a "car"')
SYNTHESIZE = "--output new --in-process --captions"
TRAIN = "--run run --model ../clip --num-workers 0 --methods zsclip --seeds 0"
EVALUATE = "--run run --model ../clip --skip-absent --test-set"
PREDICT = "--recognizer run/train/zsclip-seed0 --images photos --output p.csv --in-process"
REPORT = "--run run --model ../clip --num-captions 4 --num-heatmaps 1"


@dataclass(frozen=True)
class Case:
    """A job, and one of the files that it reads."""

    job: str
    file: str
    """Relative to the working directory; a pattern that one file matches."""
    arguments: str
    count: int = 6
    """Variants of the file."""
    named: str = ""
    """What an error names; "": the file."""


CASES = (
    *(Case("synthesize", f"captions{s}", f"{SYNTHESIZE} captions{s}", 10)
      for s in (".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet", ".token")),
    Case("synthesize", "karpathy.json", f"{SYNTHESIZE} karpathy.json", 10),
    Case("synthesize", "own.yaml", f"{SYNTHESIZE} captions.txt --vocabulary own.yaml", 16),
    Case("synthesize", "own.txt", f"{SYNTHESIZE} captions.txt --vocabulary own.txt"),
    Case("tune", "space.yaml", "--run run --space space.yaml", 16),
    *(Case("status", f"run/{file}", "--run run", named="run")
      for file in ("config.json", "images/00000.json", "sections/00000.json")),
    *(Case("train", f"run/{file}", TRAIN + more, named="run")
      for file, more in (
          ("config.json", ""), ("manifest.json", ""), ("sections/00000-*.parquet", ""),
          ("images/00000.json", ""), ("images/00000.parquet", ""),
          ("features/*/images-*.safetensors", ""), ("features/*/texts-*.safetensors", ""),
          ("manifests/good.json", " --images good --output out"),
          ("manifests/good.parquet", " --images good --output out"))),
    *(Case("train", f"run/train/zsclip-seed0/{file}", TRAIN, named="zsclip-seed0")
      for file in ("settings.json", "history.json")),
    *(Case("choose", f"run/images/00000.{end}", "--run run --model ../clip --in-process",
           named="00000") for end in ("tar", "parquet")),
    *(Case("evaluate", f"run/train/zsclip-seed0/{file}", f"{EVALUATE} photos",
           named="zsclip-seed0") for file in ("recognizer.json", "recognizer.safetensors")),
    Case("evaluate", "photos/labels.csv", f"{EVALUATE} photos", 10, "photos"),
    Case("evaluate", "photos/3.png", f"{EVALUATE} photos", 10),
    Case("evaluate", "photos/4.jpg", f"{EVALUATE} photos", 10),
    Case("evaluate", "coco/instances.json", f"{EVALUATE} coco/instances.json", 16, "coco"),
    *(Case("evaluate", f"VOC2007/{file}", f"{EVALUATE} voc2007 --test-root .", count, "VOC2007")
      for file, count in (("Annotations/000003.xml", 10), ("ImageSets/Main/test.txt", 6))),
    Case("evaluate", "clip/open_clip_config.json", f"{EVALUATE} photos --model clip", 10, "clip"),
    Case("evaluate", "clip/open_clip_model.safetensors", f"{EVALUATE} photos --model clip",
         named="clip"),
    Case("predict", "photos/3.png", PREDICT, 10),
    Case("predict", "run/train/zsclip-seed0/recognizer.json", PREDICT, named="zsclip-seed0"),
    *(Case("report", f"run/{file}", REPORT, named="run")
      for file in ("evaluation.json", "images/00000.tar", "images/00000.parquet",
                   "images/00000.json", "sections/00000.json", "manifests/good.json",
                   "train/zsclip-seed0/history.json", "train/zsclip-seed0/recognizer.json",
                   "manifest.json", "rejected.parquet")),
)  # fmt: skip
MAINS = {
    module.__name__.rpartition(".")[2]: module.main
    for module in (choose, evaluate, predict, report, status, synthesize, train, tune)
}


def write_captions(folder: Path) -> None:
    """The same captions in every format."""
    rows = [{"id": at, "image_id": at, "caption": text} for at, text in enumerate(TEXTS)]
    (folder / "captions.json").write_text(json.dumps({"annotations": rows}))
    (folder / "captions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for name, delimiter in (("captions.csv", ","), ("captions.tsv", "\t")):
        table = io.StringIO()
        writer = csv.DictWriter(table, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
        (folder / name).write_text(table.getvalue())
    (folder / "captions.txt").write_text("\n".join(TEXTS))
    lines = "".join(f"{at}.jpg#0\t{text}\n" for at, text in enumerate(TEXTS))
    (folder / "captions.token").write_text(lines)
    pq.write_table(pa.Table.from_pylist(rows), folder / "captions.parquet")
    images = [{"filename": "a.jpg", "sentences": [{"raw": t, "sentid": 1}]} for t in TEXTS]
    (folder / "karpathy.json").write_text(json.dumps({"images": images}))


def write_photographs(folder: Path) -> None:
    """Labelled photographs as a csv, as COCO instances and as VOC2007."""
    for place in ("photos", "coco", *(f"VOC2007/{p}" for p in ("Annotations", "JPEGImages"))):
        (folder / place).mkdir(parents=True)
    (folder / "VOC2007/ImageSets/Main").mkdir(parents=True)
    rng = np.random.default_rng(0)
    labels, images, boxes = "file,labels\n", [], []
    for at in range(6):
        name = f"{at}.{'png' if at % 2 else 'jpg'}"
        image = Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8))
        image.save(folder / "photos" / name)
        image.save(folder / "coco" / name)
        image.save(folder / f"VOC2007/JPEGImages/00000{at}.jpg")
        classes = VOC_CLASSES[at], VOC_CLASSES[at + 1]
        labels += f"{name},{';'.join(classes)}\n"
        images.append({"id": at, "file_name": name})
        boxes += [{"image_id": at, "category_id": at + 1 + k, "bbox": [0, 0, 9, 9]} for k in (0, 1)]
        objects = "".join(f"<object><name>{n}</name></object>" for n in classes)
        xml = f"<annotation>{objects}</annotation>"
        (folder / f"VOC2007/Annotations/00000{at}.xml").write_text(xml)
    (folder / "photos/labels.csv").write_text(labels)
    categories = [{"id": at + 1, "name": name} for at, name in enumerate(VOC_CLASSES)]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "coco/instances.json").write_text(json.dumps(content))
    names = "".join(f"00000{at}\n" for at in range(6))
    (folder / "VOC2007/ImageSets/Main/test.txt").write_text(names)


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """A working directory in which every job succeeds."""
    folder = tmp_path_factory.mktemp("right")
    write_captions(folder)
    write_photographs(folder)
    (folder / "own.yaml").write_text("name: own\nclasses: [{name: dog, synonyms: [hound]}, cats]\n")
    (folder / "own.txt").write_text("dog\ncats\n")
    space = "searcher: grid\nspace: {method.residual_ratio: {grid: [0.5, 1.0]}}\n"
    (folder / "space.yaml").write_text(space)
    write_tiny_clip(folder.parent / "clip")
    shutil.copytree(folder.parent / "clip", folder / "clip")
    write_small_run(folder / "run", images_per_caption=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.main(TRAIN.split())
        choose.main(
            [
                "--run",
                "run",
                "--model",
                "../clip",
                "--in-process",
                "--name",
                "good",
                "--min-found",
                "0",
            ]
        )
        evaluate.main(f"{EVALUATE} photos".split())
    return folder


@pytest.fixture
def here(right, tmp_path, monkeypatch):
    """A copy of it to work in."""
    folder = right.parent / f"copy-{tmp_path.name}"
    shutil.copytree(right, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("t2ipal.diffusion.synthesizer.Synthesizer", Painter)
    monkeypatch.setattr("t2ipal.commands.tune.session", _stop)
    return folder


def _stop(*_: object, **__: object) -> None:
    raise RuntimeError("space.yaml is right: here Ray would start.")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.job}-{case.file}")
def test_damaged(case, here, capsys):
    (path,) = here.glob(case.file)
    content = path.read_bytes()
    clean = {p: p.read_bytes() for p in (here / "run").rglob("*") if p.is_file()}
    outcomes = []
    for about, data in damaged(content, path.name, case.count, seed=len(case.file)):
        for place, there in clean.items():  # what the job before may have mended
            place.write_bytes(there)
        for made in ("new", "out", "p.csv"):
            shutil.rmtree(made, ignore_errors=True)
        path.write_bytes(data)
        code = 0
        try:
            run_job(lambda: MAINS[case.job](case.arguments.split()))
        except SystemExit as ended:
            code = ended.code
        error = [ln for ln in capsys.readouterr().err.splitlines() if ln.startswith("error: ")]
        outcomes.append(code)
        assert code in (0, 2), about
        assert len(error) == (code == 2), about
        assert code == 0 or (case.named or path.stem) in error[0], f"{about}: {error[0]}"
    path.write_bytes(content)
    assert len(outcomes) == case.count


@pytest.mark.parametrize("job", sorted(MAINS))
def test_every_job_reads_what_is_right(job, here, capsys):
    for arguments in {case.arguments for case in CASES if case.job == job}:
        shutil.rmtree("new", ignore_errors=True)
        if job == "tune":
            with pytest.raises(RuntimeError, match="here Ray would start"):
                MAINS[job](arguments.split())
        else:
            MAINS[job](arguments.split())
