"""What a search leaves for others' pages: files, a bucket, and viewers that fail."""

import dataclasses
import logging
import math

import pytest
from search_trials import SEARCH, ended, running, some_trials

from t2ipal.search import viewers as module
from t2ipal.search.results import SearchFolder
from t2ipal.search.viewers import Viewers
from t2ipal.store import Store


def trial_folders(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_files_follow_the_trials(tmp_path):
    viewers = Viewers(SEARCH, tmp_path)
    viewers.update([ended(0), running(1)])
    assert trial_folders(tmp_path / "tensorboard") == ["00000"]
    viewers.update([ended(0), ended(1), running(2)], final=True)
    assert trial_folders(tmp_path / "tensorboard") == ["00000", "00001"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    for again in (viewers, Viewers(SEARCH, tmp_path)):  # in this process and in the next one
        again.update([ended(0), ended(1), running(2)], final=True)
        assert before == {path: path.stat().st_mtime_ns for path in before}


def test_an_unfinished_trial_waits_until_it_ends(tmp_path, caplog):
    lost = ended(1, "unfinished", "its process was lost")
    viewers = Viewers(SEARCH, tmp_path)
    viewers.update([ended(0), running(1)])
    viewers.update([ended(0), lost], final=True)
    assert trial_folders(tmp_path / "tensorboard") == ["00000"]
    again = Viewers(SEARCH, tmp_path)
    for trial in (lost, running(1), ended(1)):
        again.update([ended(0), trial], final=True)
    assert trial_folders(tmp_path / "tensorboard") == ["00000", "00001"]
    assert not caplog.records


def test_what_is_no_number_is_left_out(tmp_path, caplog):
    strange = dataclasses.replace(
        ended(0), loss=math.nan, scores=((2, math.inf), (4, 70.0)), losses=(1.0, math.nan)
    )
    Viewers(SEARCH, tmp_path).update([strange])
    assert not caplog.records
    assert "NaN" not in (text := (tmp_path / "optuna.journal").read_text())
    assert "Infinity" not in text


def test_a_viewer_that_fails_warns_once_and_is_tried_again(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.WARNING)
    (tmp_path / "tensorboard").write_text("in the way")
    viewers = Viewers(SEARCH, tmp_path)
    for _ in range(3):
        viewers.update([ended(0)])
    (record,) = caplog.records
    assert record.message.startswith("TensorBoard cannot be kept up to date: ")
    assert (tmp_path / "optuna.journal").exists()  # the others are kept up
    (tmp_path / "tensorboard").unlink()
    viewers.update([ended(0)])
    assert not (tmp_path / "tensorboard").exists()  # not before some time has passed
    viewers.update([ended(0)], final=True)
    assert trial_folders(tmp_path / "tensorboard") == ["00000"]


def test_upload(store, tmp_path):
    folder = tmp_path / "files"
    place = SearchFolder(store, "search")
    Viewers(SEARCH, folder, upload_to=place).update(some_trials(8), final=True)
    entries = store.entries()
    assert "search/optuna.journal" in entries
    assert "search/tensorboard/00003/events.out.tfevents.0.t2ipal" in entries
    for key in entries:
        assert store.read(key) == (folder / key.removeprefix("search/")).read_bytes()

    writes = []

    class Counting(Store):
        def write(self, key, data):
            writes.append(key)
            super().write(key, data)

    # Another process, whose folder is empty: it sends only what is new.
    counting = SearchFolder(Counting(store.uri, store.endpoint_url), "search")
    viewers = Viewers(SEARCH, tmp_path / "next", upload_to=counting)
    viewers.update([*some_trials(8)[:7], ended(7)], final=True)
    assert sorted(writes) == [
        "search/optuna.journal",
        "search/tensorboard-best/00007/events.out.tfevents.0.t2ipal",
        "search/tensorboard/00007/events.out.tfevents.0.t2ipal",
    ]
    viewers.update([*some_trials(8)[:7], ended(7)])
    assert len(writes) == 3


def test_columns_of_another_space_leave_the_bucket(tmp_path):
    place = SearchFolder(Store(tmp_path / "bucket"), "search")
    wide = dataclasses.replace(SEARCH.dimensions[0], values=(0.0, 9.0))  # of the same size
    other = dataclasses.replace(SEARCH, dimensions=(wide, *SEARCH.dimensions[1:]))
    key = "search/tensorboard/events.out.tfevents.0.t2ipal"
    sent = []
    for name, search in enumerate((other, SEARCH)):
        Viewers(search, tmp_path / str(name), upload_to=place).update([], final=True)
        sent.append(place.store.read(key))
    assert len(sent[0]) == len(sent[1])
    assert sent[1] == (tmp_path / "1" / key.removeprefix("search/")).read_bytes() != sent[0]


def test_trials_that_are_no_more_among_the_best_leave_the_bucket(store, tmp_path, monkeypatch):
    monkeypatch.setattr("t2ipal.search.tensorboard.NUM_BEST", 2)
    viewers = Viewers(SEARCH, tmp_path / "files", upload_to=SearchFolder(store, "search"))
    viewers.update([ended(0), ended(1)], final=True)
    viewers.update([ended(0), ended(1), ended(2)], final=True)  # each is better than the one before
    events = "events.out.tfevents.0.t2ipal"
    best = [f"search/tensorboard-best/{name}{events}" for name in ("00001/", "00002/", "")]
    assert store.list("search/tensorboard-best/") == best


@pytest.mark.parametrize("uri", ["", "mlruns", "ftp://x"])
def test_addresses_that_are_none_of_mlflow(tmp_path, uri):
    with pytest.raises(ValueError, match=r"mlflow must be the address of a server as in http://"):
        Viewers(SEARCH, tmp_path, mlflow=uri)


def test_without_mlflow(tmp_path, monkeypatch):
    from t2ipal.search import mlflow_runs

    monkeypatch.setattr(mlflow_runs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed\. Run pip install 't2ipal\[mlflow\]'\."):
        Viewers(SEARCH, tmp_path, mlflow="http://127.0.0.1:5000")


def test_an_mlflow_that_is_gone_ends_no_search(tmp_path, caplog):
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 't2ipal[mlflow]'")
    Viewers(SEARCH, tmp_path, mlflow="http://127.0.0.1:9").update([ended(0)], final=True)
    (record,) = [each for each in caplog.records if each.name == module.__name__]
    assert record.message.startswith("MLflow cannot be kept up to date: ")
    assert "\n" not in record.message
