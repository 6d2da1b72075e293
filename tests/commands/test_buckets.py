"""The jobs after synthesis on a run in a bucket: all that they leave is there and nowhere else."""

import json

import pytest
from conftest import use_credentials
from small_run import FEW_SCENES, write_random_judge, write_small_run
from tiny_clip import write_tiny_clip

from t2ipal.commands import choose, evaluate, report, train, tune
from t2ipal.pictovoc.worlds import WORLDS, World
from t2ipal.store import Store, read_choice_manifest
from t2ipal.training.runs import load_run

FILES = {"recognizer.safetensors", "recognizer.json", "settings.json", "history.json"}
SPACE = """
searcher: grid
validation_fraction: 0.3
space:
  method.residual_ratio: {grid: [0.0, 1.0]}
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A finished synthesis, and a CLIP, in folders."""
    folder = tmp_path_factory.mktemp("drawn")
    write_small_run(folder / "run")
    write_tiny_clip(folder / "clip")
    return folder


def uploaded(drawn, uri, url):
    """The finished synthesis in a bucket."""
    store = Store(uri, url)
    for path in (drawn / "run").rglob("*"):
        if path.is_file():
            store.write(path.relative_to(drawn / "run").as_posix(), path.read_bytes())
    return store


@pytest.fixture
def working_dir(tmp_path, monkeypatch):
    """Where the jobs run; nothing may appear here."""
    folder = tmp_path / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setitem(WORLDS, "pictovoc", World(count=FEW_SCENES))
    write_random_judge(tmp_path)
    monkeypatch.setattr("t2ipal.report.drawn.WEIGHTS_DIR", tmp_path)
    yield folder
    assert not list(folder.iterdir())  # no folder of the name "s3:"


def chosen_trained_measured_shown(drawn, store, words):
    """Each job's word on where it wrote, and what is there."""
    summary = choose.main([*words, "--in-process", "--min-found", "0", "--name", "good"])
    assert summary["output"] == f"{store.uri}/manifests/good.json"
    assert read_choice_manifest(store, "good").num_kept == summary["num_kept"] == 48
    methods = ["--methods", "zsclip", "class_concept", "t2ipal", "--seeds", "0", "1"]
    training = [*words, "--num-workers", "0", *methods, "--set", "training.num_epochs=2"]
    training += ["--images", "good", "--normalization", "full"]
    summary = train.main(training)
    assert summary["output"] == f"{store.uri}/train"
    names = ["class_concept-seed0", "t2ipal-seed0", "t2ipal-seed1", "zsclip-seed0"]
    assert summary["recognizers"] == names
    for name in names:
        keys = store.list(f"train/{name}/")
        assert {key.removeprefix(f"train/{name}/") for key in keys} == FILES
        load_run(store, f"train/{name}")
    times = store.times("train/")
    assert train.main(training) == summary and store.times("train/") == times

    measured = evaluate.main([*words, "--modality-gap"])
    assert json.loads(store.read("evaluation.json")) == json.loads(json.dumps(measured))
    assert "modality_gap" in measured["methods"]["t2ipal"]
    summary = report.main(words)
    assert summary["report"] == f"{store.uri}/report.html"
    page = store.read("report.html").decode()
    assert "Class concept" in page and '<section id="curves"' in page
    assert f"python jobs/report.py --run {store.uri}" in page


def test_moto(drawn, s3_server, working_dir):
    store = uploaded(drawn, "s3://runs/whole-chain", s3_server)
    model = ["--model", str(drawn / "clip")]
    words = ["--run", store.uri, "--endpoint-url", s3_server, *model]
    chosen_trained_measured_shown(drawn, store, words)


def test_swift(drawn, swift, working_dir, monkeypatch):
    import boto3

    use_credentials(monkeypatch, swift.access_key, swift.secret_key)
    boto3.client("s3", endpoint_url=swift.url).create_bucket(Bucket="jobs")
    store = uploaded(drawn, "s3://jobs/whole-chain", swift.url)
    model = ["--model", str(drawn / "clip")]
    words = ["--run", store.uri, "--endpoint-url", swift.url, *model]
    chosen_trained_measured_shown(drawn, store, words)


def test_an_output_of_its_own(drawn, s3_server, working_dir, tmp_path):
    """A run in a folder, recognizers in a bucket, and the other way round."""
    bucket = uploaded(drawn, "s3://runs/elsewhere", s3_server)
    common = ["--endpoint-url", s3_server, "--model", str(drawn / "clip"), "--num-workers", "0"]
    common += ["--methods", "zsclip"]
    train.main(["--run", bucket.uri, "--output", str(tmp_path / "trained"), *common])
    assert {path.name for path in (tmp_path / "trained" / "zsclip-seed0").iterdir()} == FILES
    assert not bucket.list("train/")
    summary = train.main(["--run", str(drawn / "run"), "--output", f"{bucket.uri}/far", *common])
    assert summary["output"] == f"{bucket.uri}/far"
    keys = bucket.list("far/zsclip-seed0/")
    assert {key.rpartition("/")[2] for key in keys} == FILES
    assert not (drawn / "run" / "train").exists()


def test_a_search(drawn, s3_server, working_dir, tmp_path, ray_session):
    store = uploaded(drawn, "s3://runs/searched", s3_server)
    model = ["--model", str(drawn / "clip")]
    # Ray's workers here are older than the server, so features are taken without them.
    words = ["--run", store.uri, "--endpoint-url", s3_server, *model]
    choose.main([*words, "--in-process", "--min-found", "0"])
    (tmp_path / "space.yaml").write_text(SPACE)
    words += ["--space", str(tmp_path / "space.yaml"), "--set", "training.num_epochs=1"]
    summary = tune.main(words)
    assert summary["output"] == f"{store.uri}/search" and summary["num_failed"] == 0
    trials = json.loads(store.read("search/trials.json"))["trials"]
    assert [trial["status"] for trial in trials] == ["ok", "ok"]
    keys = store.list("search/")
    assert {"search/trials.csv", "search/best.json", "search/settings.json"} <= {*keys}
    with pytest.raises(
        ValueError, match=r"search holds another search \(recipe.training"
    ):
        tune.main([*words[:-1], "training.num_epochs=2"])
