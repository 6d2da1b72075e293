"""A whole run on one page: what its store tells, and what Chromium shows of that."""

import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from small_run import write_small_run

from t2ipal.dashboard import overview as module
from t2ipal.dashboard import snapshot
from t2ipal.dashboard.overview import Overview
from t2ipal.dashboard.server import serve
from t2ipal.store import Store

STORED = Path(__file__).parents[1] / "fixtures" / "stored"


class Watched(Store):
    """Counts what is read."""

    reads: list[str]

    def read(self, key):
        self.reads.append(key)
        return super().read(key)

    def pieces(self, key):
        self.reads.append(key)
        return super().pieces(key)


def watched(store):
    store = Watched(store.uri, store.endpoint_url)
    store.reads = []
    return store


@pytest.fixture
def grown(store):
    """The stored run with all its parts, in a folder and in a bucket."""
    for path in (STORED / "grown").rglob("*"):
        if path.is_file():
            store.write(path.relative_to(STORED / "grown").as_posix(), path.read_bytes())
    return store


def test_all_parts_of_a_run(grown):
    told = Overview(grown).told()
    assert told["problems"] == []
    synthesis = told["synthesis"]
    counts = [synthesis[name] for name in ("num_samples", "num_images", "num_missing")]
    assert counts == [12, 12, 0]
    assert (synthesis["pipeline"], synthesis["cost"]) == ("pictovoc", None)
    assert [images for _, images in synthesis["progress"]][-1] == 12
    captions = {"num_read": 15, "num_kept": 12, "num_used": 12, "rejected": [("no class named", 3)]}
    assert told["captions"] == captions
    assert told["newest"][0]["image"].startswith("data:image/jpeg;base64,")
    assert told["choices"] == [{"name": "good", "num_images": 12, "num_kept": 7}]
    (features,) = told["features"]
    assert (features["model"], features["shards"], features["num_shards"]) == ("pictovoc", 3, 3)
    assert (features["captions"], features["num_captions"]) == (12, 12)
    trained = [(each["method"], each["status"], len(each["losses"])) for each in told["training"]]
    assert trained == [("t2ipal", "done", 2), ("tai_dpt", "done", 2), ("zsclip", "done", 0)]
    evaluation = told["evaluation"]
    means = [method["mean"] for method in evaluation["methods"]]
    assert evaluation["test_set"] == "pictovoc" and means == sorted(means)
    assert len(evaluation["methods"][0]["per_class"]) == len(evaluation["class_names"]) == 20
    assert told["report"] is None
    grown.write("report.html", b"<!doctype html>")
    assert Overview(grown).told()["report"]["uri"] == f"{grown.uri}/report.html"
    json.dumps(told, allow_nan=False)


def test_a_look_at_what_has_not_changed_reads_nothing(grown, monkeypatch):
    monkeypatch.setattr(module, "ROUNDS_S", 0.0)
    store = watched(grown)
    looks = Overview(store)
    looks.told()
    assert not [key for key in store.reads if key.endswith((".safetensors", ".pt"))]
    tars = [key for key in store.reads if key.endswith(".tar")]
    assert len(tars) == 1  # for the newest images
    store.reads.clear()
    before = looks.told()
    assert store.reads == []
    grown.write("evaluation.json", grown.read("evaluation.json").replace(b"pictovoc", b"voc2007"))
    assert looks.told()["evaluation"]["test_set"] == "voc2007" != before["evaluation"]["test_set"]
    assert store.reads == ["evaluation.json"]


def test_failed_samples_have_their_reasons():
    told = Overview(Store(STORED / "retried")).told()
    assert told["synthesis"]["failed_by_reason"] == [("black", 2)]
    assert told["training"] == [] and told["evaluation"] is None


def test_a_run_under_synthesis(tmp_path):
    write_small_run(tmp_path)
    shards = sorted(tmp_path.glob("images/*.json"))
    shards[-1].unlink()
    (tmp_path / "manifest.json").unlink()
    told = Overview(Store(tmp_path)).told()
    synthesis = told["synthesis"]
    assert synthesis["num_missing"] > 0 and synthesis["num_shards_done"] == len(shards) - 1
    assert Overview(Store(tmp_path), 2.0).told()["synthesis"]["cost"] is not None
    with pytest.raises(ValueError, match="price_per_gpu_hour must be >= 0, got -1"):
        Overview(Store(tmp_path), -1)


def test_nothing_is_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No run in .*\. Run jobs/synthesize\.py first\."):
        Overview(Store(tmp_path)).told()


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("evaluation.json", "evaluation"),
        ("train/t2ipal-seed0/settings.json", "training"),
        ("images/00001.json", "synthesis"),
        ("manifests/good.json", "choices"),
        ("config.json", "synthesis"),
    ],
)
def test_a_damaged_part_leaves_the_others(tmp_path, key, part):
    shutil.copytree(STORED / "grown", tmp_path / "run")
    (tmp_path / "run" / key).write_text("[]")
    told = Overview(Store(tmp_path / "run")).told()
    (problem,) = told["problems"]
    assert key in problem and told[part] is None
    assert told["evaluation" if part != "evaluation" else "training"]


def test_more_reasons_than_a_page_shows(tmp_path):
    counts = {f"reason {number}": 20 - number for number in range(15)}
    shown = module._most(counts)
    assert len(shown) == 13 and shown[-1] == ("others", 8 + 7 + 6)


def test_the_page_of_a_run(tmp_path, browser, monkeypatch):
    monkeypatch.setattr(snapshot, "OVERVIEW_S", 0.0)
    shutil.copytree(STORED / "grown", tmp_path / "run")
    with serve(Store(tmp_path / "run")) as address:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        errors, asked = [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.get_by_role("tab", name="Run").click()
        page.get_by_text("15 read, 12 kept, 3 rejected.").wait_for()
        assert page.locator(".run-newest img").count() == 4
        best = Overview(Store(tmp_path / "run")).told()["evaluation"]["methods"][-1]["title"]
        page.get_by_text(f"{best} on pictovoc").wait_for()
        assert page.locator(".run-training canvas").count() == 1
        page.get_by_role("button", name="by name").click()
        page.get_by_text(f"python jobs/report.py --run {tmp_path}/run").wait_for()
        page.locator(".run-report").scroll_into_view_if_needed()
        # It is written while the page is open, and read on the same address.
        (tmp_path / "run" / "report.html").write_text("<p>The report</p><script>alert(1)</script>")
        page.get_by_role("tab", name="Search").click()
        page.get_by_role("tab", name="Run").click()
        link = page.get_by_role("link", name="Open the report")
        with page.expect_popup() as opened:
            link.click()
        opened.value.get_by_text("The report").wait_for()
        assert page.locator(".run-evaluation canvas").count() == 1
        page.get_by_role("button", name="Light or dark").click()
        assert errors == []
        assert all(url.startswith((address, "data:")) for url in asked)
        page.close()


def test_the_report_is_served_without_scripts(tmp_path):
    store = Store(tmp_path)
    with serve(store) as address:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}report.html")
        store.write("report.html", b"<style>p {}</style><p>The report</p>")
        with urllib.request.urlopen(f"{address}report.html") as answer:
            assert answer.read() == store.read("report.html")
            (policy,) = answer.headers.get_all("Content-Security-Policy")
            assert "default-src 'none'" in policy and "script" not in policy
        with urllib.request.urlopen(address) as answer:
            assert "report" not in answer.headers["Content-Security-Policy"]
            assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
