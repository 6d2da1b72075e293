"""The page in a real Chromium: what a person sees, and what a browser complains about."""

import csv
import json
import shlex
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from small_search import DIMENSIONS, KIND, LR, RATIO, search_config, trial, write_search

from t2ipal.config import to_dict
from t2ipal.dashboard import snapshot
from t2ipal.dashboard.page import write_page
from t2ipal.dashboard.server import serve
from t2ipal.features.config import BackboneConfig
from t2ipal.search.results import Progress, SearchFolder, best
from t2ipal.search.space import Dimension, SearchConfig
from t2ipal.store import Store, json_bytes

HURRY = "const wait = setTimeout; window.setTimeout = (then, ms, ...r) => wait(then, ms / 8, ...r);"
"""Makes the page ask its server eight times as often."""
SEEN = """
document.addEventListener('DOMContentLoaded', () => new MutationObserver(() => {
  const state = document.documentElement.dataset.drawn;
  requestAnimationFrame(() => setTimeout(() => {
    window.seen = { ...window.seen, [state]: window.seen?.[state] ?? performance.now() };
  }));
}).observe(document.documentElement, { attributes: true }));
"""
"""Notes when each state of the page was on the screen."""
DRAWN = "html[data-drawn=yes]"


@pytest.fixture
def visit(browser):
    """Opens an address; at the end the browser must have complained of nothing."""
    contexts, complaints = [], []

    def opened(address, drawn=True, script="", **more):
        context = browser.new_context(viewport={"width": 1360, "height": 860}, **more)
        contexts.append(context)
        context.add_init_script(script)
        page = context.new_page()
        page.own = urlsplit(address).netloc
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.extend(complaint(said.text)))
        page.on("request", lambda asked: complaints.extend(foreign(asked.url, page.own)))
        page.goto(address)
        if drawn:
            page.wait_for_selector(DRAWN)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def complaint(text):
    """But for what a browser says of every server that has ended."""
    return [] if text.startswith("Failed to load resource: net::ERR_") else [text]


def foreign(url, own):
    parts = urlsplit(url)
    return [url] if parts.scheme not in ("data", "blob") and parts.netloc != own else []


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(snapshot, "REFRESH_S", 0.0)
    monkeypatch.setattr(snapshot, "SEARCHES_S", 0.0)
    monkeypatch.setattr(snapshot.Importance, "update", lambda self, *args, **more: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("made") / "run")
    return store, *write_search(store)


@contextmanager
def waiting(page, text, selector="#count"):
    """Waits after the block until an element says something."""
    yield
    page.wait_for_selector(f"{selector}:has-text('{text}')")
    page.wait_for_selector(DRAWN)


def cells(page, column):
    return page.locator(f"#table .row span:nth-child({column})").all_inner_texts()


def dragged(page, axis, start, end):
    """Draws a range along an axis of the parallel coordinates, in shares of its height."""
    page.locator("#parallel").scroll_into_view_if_needed()
    box = page.locator("#parallel .chart").bounding_box()
    left, right, top, bottom = 60, 76, 34, 22
    x = box["x"] + left + axis * (box["width"] - left - right) / 4  # 3 dimensions, loss, mAP
    height = box["height"] - top - bottom
    page.mouse.move(x, box["y"] + top + start * height)
    page.mouse.down()
    for step in range(1, 5):
        page.mouse.move(x, box["y"] + top + (start + (end - start) * step / 4) * height)
    page.mouse.up()


def test_what_one_sees_first(visit, made):
    store, _, trials = made
    winner = best(search_config(40), trials)
    with serve(store) as address:
        page = visit(address)
        assert f"{winner.validation_mAP:.2f} ± 0.30" in page.inner_text("#tiles")
        assert "4 running" in page.inner_text("#tiles") and "of 50" in page.inner_text("#tiles")
        assert page.inner_text("#status") == "running"
        panels = ("progress", "parallel", "responses", "maps", "curves", "objectives")
        for panel in panels:
            assert page.locator(f"#{panel} canvas").count() >= 1, panel
        assert page.locator("#responses canvas").count() == 3
        command = page.inner_text("#configuration")
        assert f"--from-search {store.uri}/search" in command
        assert f"{RATIO}={winner.values[RATIO]!r}" in command
        assert "loss is not finite" in page.inner_text("#failures")
        assert cells(page, 1)[0] == str(winner.number)
        assert not page.is_visible("#notice") and not page.is_visible("#switch")


def commands(page):
    """The words of each command, as a shell takes them."""
    texts = page.locator("#configuration code").all_inner_texts()
    return [shlex.split(text) for text in texts]


def test_commands_name_the_run_and_its_backbone(visit, tmp_path):
    store, run = Store(tmp_path / "elsewhere"), "/data/Anna's run"
    search, _ = write_search(store, "wide", num_trials=4, num_running=0)
    backbone = BackboneConfig("RN50", "/weights/my own.pt", device="cuda")
    more = {"run": run, "backbone": to_dict(backbone), "endpoint_url": "http://10.0.0.1:9000"}
    store.write(search.key("settings.json"), json_bytes({**search.settings(), **more}))
    with serve(store, only="wide") as address:
        anew, same = commands(visit(address))
    head = ["python", "jobs/train.py", "--run", run]
    endpoint = ["--endpoint-url", "http://10.0.0.1:9000"]
    assert anew == [*head, "--from-search", f"{store.uri}/wide", *endpoint]
    chosen = ["--methods", "t2ipal", "--model", "RN50", "--pretrained", "/weights/my own.pt"]
    assert same[:-3] == [*head, *chosen, *endpoint, "--set"]
    assert [word.partition("=")[0] for word in same[-3:]] == [RATIO, LR, KIND]


def test_a_range_on_an_axis_filters_the_page(visit, made):
    store, _, trials = made
    with serve(store) as address:
        page = visit(address)
        dragged(page, 0, 0.5, 1.0)  # the lower half of the ratio's axis
        page.wait_for_selector("#chips button")
        page.wait_for_selector(DRAWN)
        low = [t for t in trials if t.values[RATIO] <= 2.0]
        shown = int(page.inner_text("#count").split()[0])
        assert abs(shown - len(low)) <= 1 and "that the filter keeps" in page.inner_text(
            "#responses"
        )
        assert all(float(text) <= 2.05 for text in cells(page, 5))
        page.reload()
        page.wait_for_selector(DRAWN)
        assert page.inner_text("#count").startswith(f"{shown} of")
        with waiting(page, "40"):
            page.click("#chips button >> text=clear all")
        assert "range" not in page.url


def test_sort_filter_select_and_export(visit, made):
    store, _, trials = made
    with serve(store) as address:
        page = visit(address)
        page.click("#table .heads button:has-text('lr')")
        page.wait_for_selector("[aria-sort=ascending]")
        by_rate = sorted(trials, key=lambda t: t.values[LR])
        assert cells(page, 1)[:5] == [str(t.number) for t in by_rate[:5]]
        page.click("#table .heads button:has-text('lr')")
        page.wait_for_selector("[aria-sort=descending]")
        assert cells(page, 1)[0] == str(by_rate[-1].number)
        kept = [t for t in trials if t.values[KIND] == "max" and t.values[RATIO] > 1]
        with waiting(page, f"{len(kept)} of 40"):
            page.fill("#filter", "max residual_ratio>1")
        with waiting(page, "There is no column nothing.", "#count"):
            page.fill("#filter", "nothing=3")
        page.fill("#filter", "")
        failed = [t for t in trials if t.status == "failed"]
        with waiting(page, f"{40 - len(failed)} of 40"):
            page.click("#states [data-key=failed]")
        page.click("#table .row >> nth=3")
        number = cells(page, 1)[3]
        page.wait_for_selector(f"#configuration:has-text('Trial {number}')")
        with page.expect_download() as download:
            page.click("#export-csv")
        rows = [*csv.reader(download.value.path().open())]
        assert len(rows) == 1 + 40 - len(failed) and rows[0][4:7] == [RATIO, LR, KIND]
        with page.expect_download() as download:
            page.click("#export-json")
        assert len(json.loads(download.value.path().read_text())["trials"]) == 40 - len(failed)


def test_by_keyboard_and_in_the_dark(visit, made):
    with serve(made[0]) as address:
        page = visit(address, color_scheme="dark")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.focus("#theme")
        page.keyboard.press("Enter")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
        page.focus("#table")
        for key in ("ArrowDown", "ArrowDown", "Enter"):
            page.keyboard.press(key)
        third = cells(page, 1)[2]
        page.wait_for_selector(f"#configuration:has-text('Trial {third}')")
        assert f"trial={third}" in page.url
        page.keyboard.press("End")
        assert page.locator("#table .cursor").get_attribute("data-place") == "39"
        page.focus("#tab-search")
        page.keyboard.press("ArrowRight")
        assert page.is_visible("#run") and not page.is_visible("#search")


def test_a_search_that_goes_on(visit, tmp_path):
    store = Store(tmp_path / "run")
    with serve(store) as address:
        page = visit(address, drawn=False, script=HURRY)
        page.wait_for_selector("#run")  # what there is to see of a run without a search
        page.click("#tab-search")
        page.wait_for_selector("#empty:has-text('No search in this run yet')")
        search, trials = write_search(store, num_trials=20)
        page.wait_for_selector("#tiles:has-text('4 running')")
        better = replace(trials[-1], status="ok", validation_mAP=88.0, ended_s=1.7e9 + 999)
        search.keep(0, [*trials[:-1], better])
        page.wait_for_selector("#tiles:has-text('88.00')")
        page.wait_for_selector("#configuration:has-text('trial 19')")
        unfinished = trial(21, better.values, "unfinished", reason="its process was lost")
        search.keep(1, [trial(20, better.values, "failed", reason="out of memory"), unfinished])
        page.wait_for_selector("#failures:has-text('out of memory')")
        page.wait_for_selector("#failures:has-text('its process was lost')")
        page.wait_for_selector("#tiles:has-text('1 unfinished')")
        search.keep_progress(Progress("done", 21, 1.7e9, time.time()))
        page.wait_for_selector("#status:has-text('done')")
        search.keep_progress(Progress("running", 21, 1.7e9, time.time() - 999))
        page.wait_for_selector("#status:has-text('interrupted')")


def test_a_server_that_ends_and_starts_again(visit, tmp_path):
    store = Store(tmp_path / "run")
    search, trials = write_search(store, num_trials=12)
    with serve(store) as address:
        page = visit(address, script=HURRY)
        page.fill("#filter", "max")
    page.wait_for_selector("#notice:has-text('No connection')")
    assert page.locator("#table .row").count() > 0
    search.keep(1, [trial(12, trials[0].values, validation_mAP=91.0)])
    with serve(store, urlsplit(address).port):
        page.wait_for_selector("#tiles:has-text('91.00')")
        page.wait_for_selector("#notice", state="hidden")
        assert page.input_value("#filter") == "max"
        page.fill("#filter", "")
        scored = sum(t.status != "failed" for t in trials) + 1
        page.wait_for_selector(f"#curves-lead:has-text('{scored} trials.')")


def test_several_searches_of_a_run(visit, tmp_path):
    store = Store(tmp_path / "run")
    write_search(store, num_trials=12)
    write_search(store, "search-wide", num_trials=30, status="done", minimize=())
    with serve(store) as address:
        page = visit(address)
        page.select_option("#searches", "search-wide")
        with waiting(page, "30"):
            pass
        assert "search=search-wide" in page.url and page.inner_text("#status") == "done"
        assert "does not minimize" in page.inner_text("#objectives-lead")
        page.reload()
        page.wait_for_selector(DRAWN)
        assert page.inner_text("#count") == "30"
        assert "#" in page.url


def test_one_file_without_a_server(visit, made, tmp_path):
    store, _, trials = made
    path = store.local_path(write_page(store, "search"))
    page = visit(path.as_uri())
    assert f"{best(search_config(40), trials).validation_mAP:.2f}" in page.inner_text("#tiles")
    assert page.inner_text("#count") == "40" and "as of" in page.inner_text("#age")
    page.click("#table .heads button:has-text('lr')")
    page.wait_for_selector("[aria-sort=ascending]")
    assert page.locator("#curves canvas").count() == 1
    alone = Store(store.local_path("search"))
    assert write_page(alone, "") == "page.html"


def test_texts_are_never_markup(visit, tmp_path):
    evil = "<img src=x onerror=window.hacked=1>"
    ends = "</script><script>window.hacked=2</script><!--"
    store = Store(tmp_path / "<b>run")
    dimension = Dimension(f"method.{evil}", "choice", (evil, ends, "plain"))
    of_search = SearchConfig((*DIMENSIONS, dimension), num_samples=12)
    search = SearchFolder(store, "search")
    search.begin({"search": to_dict(of_search), "recipe": {}, "features": ends})
    values = {RATIO: 1.0, LR: 1e-3, KIND: "max"}
    search.keep(0, [trial(n, {**values, dimension.path: (evil, ends)[n % 2]}) for n in range(11)])
    search.keep(1, [trial(11, {**values, dimension.path: ends}, "failed", reason=evil + ends)])
    search.keep_progress(Progress("ended", 12, 1.7e9, 1.7e9, note=ends))
    with serve(store) as address:
        served = visit(address)
        filed = visit(store.local_path(write_page(store, "search")).as_uri())
        for page in (served, filed):
            assert ends in page.inner_text("#tiles") and evil + ends in page.inner_text("#failures")
            box = page.locator("#responses .chart >> nth=0").bounding_box()
            page.mouse.move(box["x"] + 60, box["y"] + 40)
            page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 30)
            assert page.evaluate("window.hacked") is None
            assert page.locator("img").count() == 0


def test_ten_thousand_trials(visit, tmp_path, record_property):
    store = Store(tmp_path / "run")
    _, trials = write_search(store, num_trials=10000, num_running=64)
    with serve(store) as address:
        with urllib.request.urlopen(f"{address}state.json") as answer:
            answer.read()  # the server has read the store
        page = visit(address, script=SEEN)
        page.wait_for_function("() => window.seen?.yes")
        times = page.evaluate("window.seen")
        assert page.inner_text("#count") == "10,000"
        assert page.locator("#table .row").count() < 60
        started = time.perf_counter()
        page.fill("#filter", "max lr>0.001")
        kept = sum(t.values[KIND] == "max" and t.values[LR] > 0.001 for t in trials)
        with waiting(page, f"{kept:,} of 10,000"):
            pass
        filtered = time.perf_counter() - started
        started = time.perf_counter()
        page.click("#table .heads button:has-text('lr')")
        page.wait_for_selector("[aria-sort=ascending]")
        ordered = time.perf_counter() - started
        page.fill("#filter", "")
        page.wait_for_selector(DRAWN)
        started = time.perf_counter()
        dragged(page, 0, 0.5, 1.0)
        page.wait_for_selector("#chips button")
        brushed = time.perf_counter() - started
    # A second each where the machine is not shared; the rest is for machines that are.
    record_property("seconds", [times["in sight"] / 1000, filtered, ordered, brushed])
    assert times["in sight"] < 5000 and filtered < 5 and ordered < 3 and brushed < 5
