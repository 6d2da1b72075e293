"""jobs/report.py at every stage of a run, wherever run, parts and page lie."""

import json
import re
import shutil

import pytest
from painter import Painter, contents, painted_run
from small_run import FEW_SCENES
from tiny_clip import write_tiny_clip

from t2ipal.commands import evaluate, report, synthesize, train
from t2ipal.pictovoc.worlds import WORLDS, World
from t2ipal.store import Store, read_manifest

CAPTIONS = (
    "一只狗 a cat & <script>alert(1)</script>",
    "كلب a cat “with” a <b>hat</b> 🐕",
    "a cat " + "and a hat " * 9,
)
OWN = f'name: own\nclasses: [cat, hat, {{name: "{"x" * 300}", synonyms: [zebra], prompt: zebra}}]\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of VOC's classes that was painted, with recognizers and an evaluation; and a CLIP."""
    folder = painted_run(tmp_path_factory.mktemp("made"))
    write_tiny_clip(folder / "clip")
    words = ["--run", str(folder / "run"), "--model", str(folder / "clip")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WORLDS, "pictovoc", World(count=FEW_SCENES))
        train.main([*words, "--num-workers", "0", "--methods", "zsclip"])
        evaluate.main(words)
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy, in which the job runs."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setitem(WORLDS, "pictovoc", World(count=FEW_SCENES))
    return tmp_path / "copy"


def sections(page):
    return re.findall(r'<section id="(\w+)"', page)


def missing(page):
    """What the page says that it lacks."""
    listed = re.search(r'<ul class="missing">(.*?)</ul>', page)
    return re.findall(r"<li>(.*?)</li>", listed[1]) if listed else []


def shown(*words):
    """The summary of the job, and its page."""
    summary = report.main(["--run", "run", *words])
    folder, _, name = summary["report"].rpartition("/")
    return summary, Store(folder).read(name).decode()


def test_each_stage_of_a_run(folder, capsys):
    """Backwards, from the last one to the first."""
    run = folder / "run"
    summary, page = shown("--model", "clip")
    assert missing(page) == [] and summary["num_images"] == 4
    assert {*sections(page)} >= {"results", "classes", "images", "heatmaps", "notes"}
    assert "python jobs/report.py --run run --model clip" in page
    capsys.readouterr()

    (run / "evaluation.json").unlink()
    _, page = shown("--model", "clip")
    assert {*sections(page)} == {"images", "pipeline", "settings"}
    said = [
        f"Results are left out: No evaluation.json in {run}. Run jobs/evaluate.py first.",
        "Heatmaps are left out: No test set was measured on. Give --test-set to draw on one.",
    ]
    assert missing(page) == capsys.readouterr().err.splitlines() == said
    assert "heatmaps" in sections(shown("--model", "clip", "--test-set", "pictovoc")[1])

    shutil.rmtree(run / "train")
    _, page = shown()  # no CLIP is loaded
    assert {*sections(page)} == {"images", "pipeline", "settings"}
    assert [sentence.partition(":")[0] for sentence in missing(page)] == [
        "Losses and heatmaps are left out", "Results are left out"
    ]  # fmt: skip

    (run / "images" / "00001.json").unlink()
    (run / "manifest.json").unlink()
    summary, page = shown()
    assert summary["num_images"] == 2 and "images" in sections(page)
    assert missing(page)[0].startswith("The run is not finished: it lacks 1 of 2 shards")

    shutil.rmtree(run / "images")
    summary, page = shown()
    assert summary["num_images"] == 0 and "images" not in sections(page)
    (run / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"No run in .*run. Run jobs/synthesize.py first."):
        shown()


def test_classes_and_captions_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("t2ipal.diffusion.synthesizer.Synthesizer", Painter)
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS))
    (tmp_path / "own.yaml").write_text(OWN)
    words = ["--captions", "captions.txt", "--vocabulary", "own.yaml", "--output", "run"]
    synthesize.main([*words, "--in-process"])
    assert len(read_manifest(Store("run")).class_names) == 3
    summary, page = shown()
    assert (summary["num_images"], summary["judge_share"]) == (3, None)
    assert "<script" not in page and "<b>hat" not in page
    for words in ("一只狗 a cat &amp; &lt;script&gt;alert(1)", "كلب a cat “with” a &lt;b&gt;hat"):
        assert words in page
    assert page.count("data:image/jpeg") == 3


def test_a_run_that_cannot_be_written(folder, monkeypatch):
    before = contents(folder / "run")
    check = Store.require_writable

    def refuse(store, key):
        if store.uri == str(folder / "run"):
            raise PermissionError(f"Cannot write to {store.uri} (Read-only file system).")
        check(store, key)

    monkeypatch.setattr(Store, "require_writable", refuse)
    with monkeypatch.context() as patch:
        patch.setattr("t2ipal.report.finding.find_parts", None)  # nothing is done before
        with pytest.raises(OSError, match=r"No page can be written .* --output. Cannot"):
            shown("--model", "clip")
    for output, place in (("pages", "pages/report.html"), ("pages/a b.html", "pages/a b.html")):
        summary, page = shown("--model", "clip", "--num-heatmaps", "1", "--output", output)
        assert summary["report"] == str(folder / place)
        assert "results" in sections(page)
    assert "--output &#x27;pages/a b.html&#x27;" in page
    assert contents(folder / "run") == before


def test_parts_that_lie_elsewhere(folder):
    (folder / "numbers").mkdir()
    shutil.move("run/train", "trained")
    shutil.move("run/evaluation.json", "numbers/zsclip.json")
    words = ["--model", "clip", "--recognizers", "trained", "--evaluation", "numbers/zsclip.json"]
    _, page = shown(*words)
    assert missing(page) == [] and {"results", "heatmaps"} <= {*sections(page)}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("manifest.json", r"manifest.json in .*run is damaged"),
        ("config.json", None),  # what the manifest says is enough
        ("sections/00000.json", r"sections/00000.json in .*run is damaged"),
        ("images/00001.json", r"images/00001.json in .*run is damaged"),
        ("images/00001.parquet", r"images/00001.parquet in .*run is not what its marker describes"),
        ("images/00001.tar", r"images/00001.tar in .*run is not what its marker describes"),
        ("rejected.parquet", r"rejected.parquet in .*run is damaged"),
        ("evaluation.json", r"evaluation.json in .*run is damaged"),
        ("train/zsclip-seed0/recognizer.json", r"zsclip-seed0/recognizer.json in .* is damaged"),
        ("train/zsclip-seed0/recognizer.safetensors", r"weights in .*zsclip-seed0 are damaged"),
        ("train/zsclip-seed0/history.json", r"zsclip-seed0/history.json in .* is damaged"),
    ],
)
def test_a_damaged_part_is_named_and_the_last_page_stays(folder, file, message):
    path = folder / "run" / file
    (folder / "run" / "report.html").write_text("the last page")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = contents(folder / "run")
    if message is None:
        shown("--model", "clip", "--num-heatmaps", "1")
        return
    with pytest.raises(ValueError, match=message):
        shown("--model", "clip", "--num-heatmaps", "1")
    assert contents(folder / "run") == before


def test_a_run_in_a_bucket(folder, s3_server):
    """Before it is trained; and its page in a folder, or elsewhere in the bucket."""
    store = Store("s3://runs/to-report", s3_server)
    for path in (folder / "run").rglob("*"):
        key = path.relative_to(folder / "run").as_posix()
        if path.is_file() and not key.startswith(("train/", "evaluation.json")):
            store.write(key, path.read_bytes())
    words = ["--run", store.uri, "--endpoint-url", s3_server]
    for output, home, key in (
        ([], store, "report.html"),
        (["--output", f"{store.uri}/pages/a.html"], store, "pages/a.html"),
        (["--output", "pages"], Store(folder / "pages"), "report.html"),
    ):
        assert report.main([*words, *output])["report"] == f"{home.uri}/{key}"
        assert len(missing(home.read(key).decode())) == 2
    # And a run in a folder, with its evaluation in the bucket.
    shutil.move("run/evaluation.json", "evaluation.json")
    store.write("far/evaluation.json", (folder / "evaluation.json").read_bytes())
    words = ["--model", "clip", "--endpoint-url", s3_server, "--evaluation", f"{store.uri}/far"]
    assert json.loads(store.read("far/evaluation.json"))["num_images"] == FEW_SCENES
    assert "results" in sections(shown(*words, "--num-heatmaps", "1")[1])


def test_a_submitted_job_writes_where_it_can_be_found(folder, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ValueError, match="output must be s3:// or an absolute path, got 'pages'"):
        report.main(["--run", str(folder / "run"), "--output", "pages"])
    assert not (folder / "pages").exists()
