import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from small_run import FEW_SCENES, small_captions

from t2ipal.commands import pipeline
from t2ipal.pictovoc.worlds import WORLDS, World
from t2ipal.pipeline.ledger import read_spent
from t2ipal.pipeline.meter import Meter
from t2ipal.store import Store, finished_shards
from t2ipal.synthesis.rendering import RenderingSynthesizer

ROOT = Path(__file__).parents[2]
FILE = """
run: {run}
filter:
  captions: {captions}
synthesis: {{images_per_caption: 2, images_per_shard: 4, in_process: true}}
features: {{in_process: true}}
choice: {{min_found: 0, in_process: true}}
training:
  images: chosen
  methods: tai_dpt
  seeds: 0
  set: training.num_epochs=1
  num_workers: "0"
evaluation: {{in_process: true}}
report: {{num_heatmaps: 1}}
"""
NUM_SHARDS = 12


class SlowSynthesizer(RenderingSynthesizer):
    def __call__(self, batch):
        time.sleep(0.05)
        return super().__call__(batch)


@pytest.fixture
def files(tmp_path):
    """The pipeline's file, with a price table beside it in which this machine is dear."""
    captions = tmp_path / "captions.jsonl"
    rows = [{"id": c.caption_id, "caption": c.caption} for c in small_captions()]
    captions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "small.yaml"
    path.write_text(FILE.format(run=tmp_path / "run", captions=captions))
    (tmp_path / "dear.yaml").write_text("machines: {local: {dollars_per_hour: 36000}}\n")
    return path


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr("t2ipal.diffusion.synthesizer.Synthesizer", SlowSynthesizer)
    monkeypatch.setattr("t2ipal.diffusion.identity.pinned", lambda config, model: config)
    monkeypatch.setitem(WORLDS, "pictovoc", World(count=FEW_SCENES))
    monkeypatch.setattr(pipeline, "Meter", partial(Meter, look_s=0.02))


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_stops_by_budget_and_goes_on(files, small, capsys):
    arguments = ["--pipeline", str(files), "--prices", str(files.parent / "dear.yaml")]
    with pytest.raises(SystemExit) as stopped:
        pipeline.main([*arguments, "--budget-dollars", "2"])
    assert stopped.value.code == pipeline.BUDGET_USED_UP
    caught = capsys.readouterr()
    summary = json.loads(caught.out.splitlines()[-1])
    store = Store(files.parent / "run")
    made = len(finished_shards(store))
    assert 0 < made < NUM_SHARDS
    assert summary["status"] == "budget" and summary["left"][0] == "synthesis"
    spent = read_spent(store)
    assert spent.dollars >= 2 and spent.dollars == summary["spent"]["dollars"]
    assert "the budget of 2.00 dollars is used up" in caught.err and "Left: synth" in caught.err

    with pytest.raises(ValueError, match="is used up: the run has cost"):
        pipeline.main([*arguments, "--budget-dollars", "2"])

    summary = pipeline.main([*arguments, "--budget-dollars", "1000000"])
    assert json.loads(json.dumps(summary)) == last_line(capsys)
    assert summary["status"] == "done" and summary["left"] == []
    assert summary["stages"]["synthesis"]["num_shards_skipped"] == made
    assert summary["stages"]["synthesis"]["num_shards"] == NUM_SHARDS
    assert summary["stages"]["training"]["recognizers"] == ["tai_dpt-seed0"]
    assert list(summary["seconds"]) == list(summary["stages"])
    assert summary["spent"]["dollars"] > spent.dollars
    assert store.exists("report.html")

    planned = pipeline.main([*arguments, "--dry-run"])
    assert planned["plan"]["num_images_done"] == planned["plan"]["num_images"]
    assert planned["plan"]["num_shards_done"] == NUM_SHARDS
    stored = sum(path.stat().st_size for path in (files.parent / "run/features").rglob("*.safe*"))
    assert planned["plan"]["bytes_of"]["features"] == pytest.approx(stored, rel=0.3)


def test_plan_loads_no_torch(files):
    code = (
        "import sys; from t2ipal.commands.pipeline import main; "
        f"main(['--pipeline', {str(files)!r}, '--dry-run']); "
        "assert not {'torch', 'ray', 'diffusers'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["status"] == "planned" and summary["plan"]["num_shards"] == NUM_SHARDS
    assert not (files.parent / "run").exists()


def test_shipped_file_is_planned(capsys, tmp_path):
    run = ["--run", str(tmp_path / "run")]
    summary = pipeline.main(["--pipeline", str(ROOT / "pipeline.yaml"), *run, "--dry-run"])
    assert summary["plan"]["num_images"] == 400
    assert summary["plan"]["num_shards"] == 7
    assert summary["plan"]["bytes_of"]["captions"] == 200 * 60
    assert "200 captions are not written yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line, told",
    [
        ("trainig: {}", "Unknown key 'trainig'. Did you mean 'training'"),
        ("filter: {vocabulery: voc2007}", "stands twice"),
        ("captions: {count: 0}", "captions: count must be > 0, got 0"),
        ("captions: {output: here}", "output is no option of a stage"),
        ("captions: {vocabulari: voc2007}", "Did you mean 'vocabulary'"),
        ("budget_dollars: -1", "budget_dollars must be > 0, got -1"),
        ("backbone: {modle: RN50}", "Did you mean 'model'"),
        ("endpoint_url: [1]", "endpoint_url must be str"),
    ],
)
def test_refuses(files, line, told):
    files.write_text(files.read_text() + line + "\n")
    with pytest.raises(ValueError) as refused:
        pipeline.main(["--pipeline", str(files), "--dry-run"])
    assert told in str(refused.value) and str(files) in str(refused.value)


@pytest.mark.parametrize(
    "old, new, told",
    [
        ('num_workers: "0"', "num_workers: 1:4", "num_workers must be a text, got 64. Put it in"),
        ("  captions: ", "  captions: []\n  #", "filter must name captions"),
        ("images_per_shard: 4", "num_captions: 4", "num_captions is an option of filter"),
        ("min_found: 0", "min_found: x", "choice: min_found must be"),
    ],
)
def test_refuses_options(files, old, new, told):
    files.write_text(files.read_text().replace(old, new))
    with pytest.raises(ValueError) as refused:
        pipeline.main(["--pipeline", str(files), "--dry-run"])
    assert told in str(refused.value)


def test_refuses_what_the_budget_cannot_pay(files, tmp_path):
    (tmp_path / "dear.yaml").write_text(
        "machines: {local: {dollars_per_hour: 1000}}\n"
        "rates: [{machine: local, model: pictovoc, images_per_hour: 1}]\n"
    )
    arguments = ["--pipeline", str(files), "--prices", str(tmp_path / "dear.yaml")]
    with pytest.raises(ValueError, match=r"does not suffice: 0.00 are spent"):
        pipeline.main([*arguments, "--budget-dollars", "5"])
    assert not (tmp_path / "run").exists()


def test_later_stages_are_checked_first(files, small, tmp_path):
    files.write_text(files.read_text().replace("methods: tai_dpt", "methods: tai_dtp"))
    with pytest.raises(ValueError, match="Did you mean 'tai_dpt'"):
        pipeline.main(["--pipeline", str(files)])
    assert not (tmp_path / "run").exists()
