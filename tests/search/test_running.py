import json
import time
from dataclasses import replace

import pytest
from fake_clip import FakeClip
from search_data import START, data, space

from t2ipal.search.population import train_population
from t2ipal.search.results import BEST, PROGRESS, TABLE, Progress, SearchFolder, Trial, best
from t2ipal.search.running import Keeper, Monitor, describe, in_process, reasons

SPACE = space(("method.sharpness", "uniform", (1.0, 9.0)), num_samples=5)


def search(folder, space=SPACE, **options):
    with Monitor(space, folder, quiet=True) as monitor:
        in_process(space, START, data(space), FakeClip, folder, **options)
    return monitor


def test_a_search_in_this_process(store):
    folder = SearchFolder(store, "search")
    monitor = search(folder, population=2)
    assert [trial.status for trial in monitor.trials] == ["ok"] * 5
    assert (monitor.num_before, folder.num_populations()) == (0, 3)
    assert monitor.trials == folder.trials()
    assert folder.status() == "done"
    assert (
        json.loads(store.read("search/best.json"))["number"] == best(SPACE, monitor.trials).number
    )
    rows = store.read("search/trials.csv").decode().splitlines()
    assert rows[0].startswith("number,method.sharpness,status,reason,validation_mAP")
    assert len(rows) == 6 and store.exists(f"search/{TABLE}") and store.exists(f"search/{BEST}")


def test_populations_do_not_change_the_trials(store):
    one, many = (
        search(SearchFolder(store, name), population=size).trials
        for name, size in (("one", 1), ("many", None))
    )
    for first, second in zip(one, many, strict=True):
        assert first.values == second.values
        assert first.validation_mAP == pytest.approx(second.validation_mAP, rel=1e-5)
        assert first.losses == pytest.approx(second.losses, rel=1e-5)


class Clock:
    """Says the right time so often, and then a much later one."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, before):
        self.before = before

    def time(self):
        self.before -= 1
        return time.time() + (0 if self.before >= 0 else 1e6)


class Killed(BaseException):
    pass


def test_after_a_kill_no_finished_trial_runs_again(store, monkeypatch):
    folder, begun = SearchFolder(store, "search"), []

    def train(settings, *arguments):
        begun.append([*settings])
        *others, report, _ = arguments
        if len(begun) == 2:
            train_population(settings, *others, _until_epoch_2(report))
        return train_population(settings, *arguments)

    def _until_epoch_2(report):
        def told(trials):
            report(trials)
            if len(trials[0].losses) == 2:
                raise Killed

        return told

    monkeypatch.setattr("t2ipal.search.running.train_population", train)
    monkeypatch.setattr("t2ipal.search.running.KEEP_S", 0.0)
    with pytest.raises(Killed):
        search(folder, population=2)
    there = folder.trials()
    assert [trial.status for trial in there] == ["ok", "ok", "running", "running"]
    assert len(there[2].losses) == 2 and folder.progress().status == "ended"
    assert "Killed" in folder.progress().note
    monitor = search(folder, population=2)
    assert begun == [[0, 1], [2, 3], [2, 3], [4]]
    assert monitor.num_before == 2
    assert [trial.status for trial in monitor.trials] == ["ok"] * 5
    assert monitor.trials[:2] == there[:2]
    assert search(folder).num_before == 5 and len(begun) == 4


def test_time_is_up(store, monkeypatch):
    folder = SearchFolder(store, "search")
    monitor = search(folder, deadline_s=time.time() - 1)
    assert monitor.trials == [] and folder.status() == "ended"
    monkeypatch.setattr("t2ipal.search.population.time", Clock(before=3))
    left = search(folder, deadline_s=time.time() + 1000).trials
    assert {trial.status for trial in left} == {"unfinished"} and folder.status() == "ended"
    monkeypatch.undo()
    assert len(search(folder).trials) == 5


def test_a_keeper_writes_when_a_trial_ends_and_now_and_then(store, monkeypatch):
    folder = SearchFolder(store, "search")
    keep, running = Keeper(folder, 3, {0: {}}), Trial(0, {}, "running")
    keep([running])
    keep([replace(running, loss=1.0)])  # so soon that it is not written
    assert folder.trials() == [running]
    ended = replace(running, status="ok", loss=0.5)
    keep([ended])
    assert folder.trials() == [ended] and store.exists("search/populations/00003.json")
    monkeypatch.setattr("t2ipal.search.running.KEEP_S", 0.0)
    keep([replace(ended, seconds=2.0)])
    assert folder.trials()[0].seconds == 2.0


def test_a_population_that_is_begun_anew_keeps_what_has_ended(store):
    folder = SearchFolder(store, "search")
    ended = Trial(0, {"a": 1}, "ok", validation_mAP=60.0)
    folder.keep(3, [ended, Trial(1, {"a": 2}, "running")])
    keep = Keeper(folder, 3, {0: {"a": 1}, 1: {"a": 2}})
    assert keep.settings == {1: {"a": 2}}
    keep([Trial(1, {"a": 2}, "running")])
    assert folder.trials()[0] == ended


def test_another_process_in_the_same_folder_is_refused(store):
    folder, now = SearchFolder(store, "search"), time.time()
    folder.require_alone()
    with Monitor(SPACE, folder, quiet=True):
        folder.require_alone()  # it is this one
        mine = folder.progress()
        folder.keep_progress(replace(mine, pid=1))
        with pytest.raises(RuntimeError, match=r"Another process searches in .* \(process 1 of"):
            folder.require_alone()
        folder.keep_progress(replace(mine, pid=2**22 + 1))  # none has such a number: it was killed
        folder.require_alone()
        folder.keep_progress(replace(mine, host="elsewhere"))
        with pytest.raises(RuntimeError, match="If it was killed, wait 60 seconds"):
            folder.require_alone()
        folder.keep_progress(replace(mine, host="elsewhere", updated_s=now - 100))
        folder.require_alone()


def test_a_monitor_tells_of_each_new_best(store, capsys):
    folder = SearchFolder(store, "search")
    with Monitor(SPACE, folder, quiet=True) as monitor:
        values = {"method.sharpness": 2.5}
        folder.keep(0, [Trial(0, values, "ok", validation_mAP=60.0, spread=0.5)])
        monitor.look()
        monitor.look()
        folder.keep(1, [Trial(1, values, "ok", validation_mAP=59.0)])
        monitor.look()
        folder.keep(2, [Trial(2, values, "ok", validation_mAP=61.5)])
        monitor.look()
    assert capsys.readouterr().err.splitlines() == [
        "best so far: validation_mAP 60.00 ± 0.50 (trial 0: sharpness 2.5)",
        "best so far: validation_mAP 61.50 (trial 2: sharpness 2.5)",
    ]
    assert folder.progress().status == "ended"


def test_the_bar_has_counts_and_the_best(store, capsys):
    folder = SearchFolder(store, "search")
    folder.keep(0, [Trial(n, {}, s) for n, s in enumerate(("running", "stopped", "failed"))])
    folder.keep(1, [Trial(3, {}, "ok", validation_mAP=60.0)])
    with Monitor(SPACE, folder) as monitor:
        monitor.look()
    line = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    for part in ("3/5", "best=60.00", "running=1", "stopped=1", "failed=1"):
        assert part in line


def test_a_monitor_survives_a_store_that_does_not_answer(store, monkeypatch, caplog):
    monkeypatch.setattr("t2ipal.search.running.LOOK_S", 0.01)
    folder, looked = SearchFolder(store, "search"), []

    def look(self):
        looked.append(1)
        raise OSError("no answer")

    with monkeypatch.context() as patched, Monitor(SPACE, folder, quiet=True):
        patched.setattr(Monitor, "look", look)
        while len(looked) < 3:
            time.sleep(0.01)
    assert "Could not look at the search: no answer" in caplog.text


def test_signs_of_life(store):
    folder, now = SearchFolder(store, "search"), time.time()
    assert folder.status() == "waiting"
    folder.keep_progress(Progress("running", 5, now, now))
    assert folder.status(now + 10) == "running"
    assert folder.status(now + 100) == "interrupted"
    folder.keep_progress(Progress("done", 5, now, now))
    assert folder.status(now + 100) == "done"
    store.write(f"search/{PROGRESS}", b'{"status": 1}')
    with pytest.raises(ValueError, match=r"search/progress.json in .* is damaged"):
        folder.status()


def test_reasons():
    rows = [Trial(n, {}, "failed", reason) for n, reason in enumerate("abb")]
    rows += [Trial(4, {}, "ok"), Trial(5, {}, "unfinished", "a")]
    found = {("failed", "b"): 2, ("failed", "a"): 1, ("unfinished", "a"): 1}
    assert reasons(rows) == found
    trial = Trial(3, {"training.lr": 0.00123456, "method.adapter": "none"}, "ok", loss=1.0)
    by_loss = space(("training.lr", "uniform", (1e-3, 1.0)), metric="loss", mode="min")
    assert describe(by_loss, trial) == "best so far: loss 1.00 (trial 3: lr 0.001235, adapter none)"
