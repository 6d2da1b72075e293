from small_search import KIND, LR, RATIO, search_config, trial

from t2ipal.dashboard import importance as module
from t2ipal.dashboard.forest import importance
from t2ipal.dashboard.importance import Importance
from t2ipal.search.space import draw_settings


def done(num_trials):
    settings = draw_settings(search_config(num_trials))
    return [trial(number, values) for number, values in enumerate(settings)]


def test_what_explains_the_score():
    dimensions = [
        {"path": "matters", "kind": "uniform", "values": [0.0, 1.0]},
        {"path": "idle", "kind": "loguniform", "values": [1e-3, 1.0]},
        {"path": "listed", "kind": "choice", "values": ["a", [1, 2]]},
        {"path": "only", "kind": "grid", "values": [3]},
    ]
    rows = [
        ((x / 60, 10 ** (-3 * (x * 7 % 60) / 60), ("a", [1, 2])[x % 2], 3), 10 * x / 60 + x % 2)
        for x in range(60)
    ]
    shares = importance(dimensions, rows)
    assert shares["matters"] > 0.8 and shares["idle"] < 0.1 and sum(shares.values()) < 1.01
    assert importance(dimensions, rows) == shares


def test_a_sample_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(module, "MAX_TRIALS", 30)
    trials = done(40)
    found = Importance()
    found.update(search_config(40), trials, wait=True)
    assert found.note == "" and {*found.shares} == {RATIO, LR, KIND}
    assert (found.num_trials, found.num_finished) == (30, 40)
    first, found.shares = found.shares, None
    found.update(search_config(40), [*trials, *done(2)], wait=True)
    assert found.shares is None  # too few have come since
    assert max(first, key=first.get) in (RATIO, LR)


def test_too_few_trials():
    found = Importance()
    found.update(search_config(8), done(8), wait=True)
    assert found.shares is None and found.note == "Shown from 12 finished trials on."


def test_what_cannot_be_computed(monkeypatch):
    monkeypatch.setattr(module.sys, "executable", "/no/python")
    found = Importance()
    found.update(search_config(20), done(20), wait=True)
    assert found.shares is None and found.note.startswith("It could not be computed: ")
    assert found.told()["num_finished"] == 20
