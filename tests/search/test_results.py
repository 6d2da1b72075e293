import json
import math
import time
from dataclasses import replace

import pytest
from search_data import space

from t2ipal.search.results import (
    Progress,
    SearchFolder,
    Trial,
    best,
    csv_table,
    find_searches,
    pareto_front,
    read_old_table,
    read_trials,
    summary,
)
from t2ipal.store import Store

SPACE = space(("method.sharpness", "uniform", (1.0, 9.0)))
VALUES = {"method.sharpness": 2.0}
OK = Trial(
    1, VALUES, "ok", "", 80.0, 0.5, 1.5, 40, 2.0, ((2, 70.0), (4, 80.0)), (2.0, 1.5), 1.0, 3.0
)
RUNNING = Trial(2, VALUES, "running", scores=((2, 71.0),), losses=(2.0, 1.9))
FAILED = Trial(0, VALUES, "failed", 'no memory, "sorry"', losses=(math.nan,))


def test_trials_come_back_as_they_were(store):
    folder = SearchFolder(store, "search")
    assert (folder.trials(), folder.num_populations(), folder.holds_trials()) == ([], 0, False)
    folder.keep(0, [OK, RUNNING])
    folder.keep(7, [FAILED])
    assert folder.trials() == [replace(FAILED, losses=(None,)), OK, RUNNING]
    assert SearchFolder(store, "search").trials() == folder.trials() == read_trials(store, "search")
    assert folder.num_populations() == 8 and folder.holds_trials()


def test_two_searches_in_one_folder_take_no_population_of_each_other(store, monkeypatch):
    first, second = (SearchFolder(store, "search") for _ in range(2))
    assert first.begin_population({0: VALUES}) == 0
    monkeypatch.setattr(second, "num_populations", lambda: 0)  # looked before the first one wrote
    assert second.begin_population({1: VALUES}) == 1
    assert [(t.number, t.status) for t in first.trials()] == [(0, "running"), (1, "running")]


def test_of_a_trial_that_was_begun_twice_the_state_that_goes_furthest(store):
    folder, ended = SearchFolder(store, "search"), replace(RUNNING, status="ok", loss=1.0)
    folder.keep(0, [RUNNING])
    folder.keep(1, [replace(RUNNING, losses=(9.0,))])  # the later attempt
    assert folder.trials() == [replace(RUNNING, losses=(9.0,))]
    folder.keep(0, [ended])
    assert folder.trials() == [ended]


def test_only_populations_that_changed_are_read_again(store, monkeypatch):
    folder, read = SearchFolder(store, "search"), []
    folder.keep(0, [OK])
    folder.keep(1, [RUNNING])
    folder.trials()
    original = Store.read
    monkeypatch.setattr(Store, "read", lambda self, key: read.append(key) or original(self, key))
    folder.trials()
    assert read == []
    time.sleep(0.01)
    folder.keep(1, [replace(RUNNING, status="ok", validation_mAP=60.0, loss=1.0)])
    assert [trial.status for trial in folder.trials()] == ["ok", "ok"]
    assert read == ["search/populations/00001.json"]


@pytest.mark.parametrize(
    "text", ['{"trials": [', "[]", '{"rows": []}', '{"trials": [{"a": 1}]}', '{"trials": [1]}']
)
def test_damage_is_named(store, text):
    store.write("search/populations/00000.json", text.encode())
    message = r"search/populations/00000.json in .* is damaged. Remove it and run jobs/tune.py"
    with pytest.raises(ValueError, match=message):
        SearchFolder(store, "search").trials()
    store.write("tune/trials.json", text.encode())
    with pytest.raises(ValueError, match=r"trials.json in .* is damaged"):
        read_old_table(store)


def test_another_search_is_refused_where_there_are_trials(store):
    folder = SearchFolder(store, "search")
    first, other = ({"recipe": {"method": {"sharpness": value}}, "seed": 0} for value in (1.0, 2.0))
    folder.begin(first)
    folder.begin(other)  # nothing was tried yet
    assert folder.settings() == {"version": 2, **other}
    folder.keep(0, [RUNNING])
    folder.begin(other)
    message = r"search holds another search \(recipe.method.sharpness: 2.0 there, 1.0 here\)"
    with pytest.raises(ValueError, match=message):
        folder.begin(first)
    assert folder.settings() == {"version": 2, **other}


def test_a_search_of_another_version_is_refused_and_kept(store):
    store.write("tune/settings.json", b'{"search": {}}')
    store.write("tune/trials.json", b'{"trials": []}')
    folder = SearchFolder(store, "tune")
    with pytest.raises(ValueError, match=r"another version .* \(form 1, this one writes form 2\)"):
        folder.begin({"search": {}})
    assert store.read("tune/settings.json") == b'{"search": {}}'


def test_tables(store):
    folder = SearchFolder(store, "search")
    folder.write_table(SPACE, [FAILED, OK, RUNNING])
    content = json.loads(store.read("search/trials.json"))
    assert [row["number"] for row in content["trials"]] == [0, 1, 2]
    assert content["trials"][0]["losses"] == [None] and "NaN" not in str(content)
    lines = store.read("search/trials.csv").decode().splitlines()
    assert lines == csv_table(SPACE, [FAILED, OK, RUNNING]).splitlines()
    head = "number,method.sharpness,status,reason,validation_mAP,spread,loss,images,seconds"
    assert lines[0] == f"{head},started_s,ended_s"
    assert lines[1] == '0,2.0,failed,"no memory, ""sorry""",,,,,,,'
    assert lines[2] == "1,2.0,ok,,80.0,0.5,1.5,40,2.0,1.0,3.0"
    assert json.loads(store.read("search/best.json"))["number"] == 1
    assert "losses" not in summary(OK) and summary(OK)["values"] == VALUES


def test_the_best_came_to_its_end():
    stopped = replace(OK, number=3, status="stopped", validation_mAP=95.0)
    equal = replace(OK, number=4)
    assert best(SPACE, [FAILED, OK, RUNNING, stopped, equal]) is OK
    by_loss = space(("method.sharpness", "uniform", (1.0, 9.0)), metric="loss", mode="min")
    lower = replace(OK, number=5, loss=1.0)
    assert best(by_loss, [OK, lower]) is lower
    assert best(SPACE, [FAILED, RUNNING, stopped]) is None


def test_pareto_front():
    search = space(("training.images_per_caption", "randint", (1, 6)), minimize=("images",))
    rows = [(60, 100), (65, 200), (64, 300), (70, 300), (60, 100), (70, 400), (50, 50), (70, 300)]
    trials = [replace(OK, number=n, validation_mAP=m, images=i) for n, (m, i) in enumerate(rows)]
    trials += [replace(OK, number=8, status="stopped", validation_mAP=99.0), FAILED]
    front = pareto_front(search, trials)
    assert [trial.number for trial in front] == [6, 0, 1, 3]
    dominated = [t for t in trials[:8] if t not in front]
    for trial in dominated:
        assert any(
            f.images <= trial.images and f.validation_mAP >= trial.validation_mAP for f in front
        )


def test_searches_of_a_run(store):
    assert find_searches(store) == []
    for folder in ("search", "search-wide", "tune", "research", "search-odd/deep"):
        store.write(f"{folder}/settings.json", b"{}")
    store.write("search/train/t2ipal-seed0/settings.json", b"{}")
    store.write("search-empty/other.json", b"{}")
    assert [*find_searches(store)] == ["search", "search-wide", "tune"]


def test_the_table_of_a_version_before_is_read(store):
    row = {
        "values": VALUES, "status": "ok", "reason": "", "validation_mAP": 80.0, "loss": 1.5,
        "seconds": 2.0,
    }  # fmt: skip
    store.write("tune/trials.json", json.dumps({"trials": [row, row]}).encode())
    assert read_trials(store, "tune") == read_old_table(store)
    assert [trial.number for trial in read_old_table(store)] == [0, 1]
    assert read_old_table(store)[0].validation_mAP == 80.0
    assert read_old_table(store, "search") == []


def test_progress_is_written_whole(store):
    folder = SearchFolder(store, "search")
    assert folder.progress() is None
    progress = Progress("running", 9, 1.0, 2.0, "why")
    folder.keep_progress(progress)
    assert folder.progress() == progress
