"""Event files, read with TensorBoard's own messages."""

import dataclasses
import struct

import pytest
from search_trials import BEGUN_S, SEARCH, ended, running, some_trials

from t2ipal.search import tensorboard
from t2ipal.search.space import Dimension
from t2ipal.search.tensorboard import EVENTS, TensorBoardFolder


def read_events(path):
    """(step, time, tag, scalar or what the HParams page gets) of all values in a file."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    data, found = path.read_bytes(), []
    while data:
        (size,) = struct.unpack("Q", data[:8])
        event = Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]
        for value in event.summary.value:
            plugin = value.metadata.plugin_data
            hparams = plugin.plugin_name == "hparams"
            content = HParamsPluginData.FromString(plugin.content) if hparams else None
            found.append((event.step, event.wall_time, value.tag, content or value.simple_value))
    return found


@pytest.fixture
def folder(tmp_path):
    written = TensorBoardFolder(SEARCH, tmp_path / "all", tmp_path / "best")
    written.update(some_trials(8), False)
    return tmp_path


def test_a_trial(folder):
    events = read_events(folder / "all" / "00001" / EVENTS)
    tags = {tag: content for *_, tag, content in events}
    start = tags["_hparams_/session_start_info"].session_start_info
    assert start.group_name == "00001"
    values = {name: getattr(v, v.WhichOneof("kind")) for name, v in start.hparams.items()}
    assert values == {
        "method.residual_ratio": 0.5,
        "method.sharpness": 2.0,
        "training.images_per_caption": 2.0,
        "method.places": "[1, 2]",
        "training.seed": 1.0,
    }
    assert tags["hparam/validation_mAP"] == pytest.approx(73.1)
    assert tags["hparam/images"] == 200
    assert tags["hparam/seconds"] == 12.5
    curve = [(step, time - BEGUN_S) for step, time, tag, _ in events if tag == "validation_mAP"]
    assert curve == [(2, pytest.approx(1 + 10 / 3)), (4, pytest.approx(1 + 20 / 3)), (6, 11.0)]
    losses = {step: number for step, _, tag, number in events if tag == "loss"}
    assert losses == {epoch: pytest.approx(1 / epoch) for epoch in range(1, 7)}
    assert tags["_hparams_/session_end_info"].session_end_info.status == 1  # success


def test_a_failed_trial_says_why(folder):
    events = read_events(folder / "all" / "00003" / EVENTS)
    tags = {tag: content for *_, tag, content in events}
    assert tags["_hparams_/session_end_info"].session_end_info.status == 2  # failure
    assert "reason/text_summary" in tags


def test_columns_are_the_dimensions(folder):
    ((*_, content),) = read_events(folder / "all" / EVENTS)
    columns = {info.name: info for info in content.experiment.hparam_infos}
    assert [*columns] == [dimension.path for dimension in SEARCH.dimensions]
    assert columns["method.sharpness"].domain_interval.max_value == 10
    assert [*columns["training.images_per_caption"].domain_discrete] == [1, 2, 4]
    assert [*columns["method.places"].domain_discrete] == ["[1, 2]", "all", "null"]
    metrics = [info.name.tag for info in content.experiment.metric_infos]
    assert metrics == ["hparam/validation_mAP", "hparam/loss", "hparam/images", "hparam/seconds"]


def test_columns_of_another_space_are_written_anew(tmp_path):
    wide = (Dimension("method.residual_ratio", "uniform", (0.0, 9.0)), *SEARCH.dimensions[1:])
    head = tmp_path / "all" / EVENTS
    for dimensions in (wide, SEARCH.dimensions):  # the first start tried nothing
        search = dataclasses.replace(SEARCH, dimensions=dimensions)
        TensorBoardFolder(search, tmp_path / "all", tmp_path / "best")
    for each in (head, tmp_path / "best" / EVENTS):
        ((*_, content),) = read_events(each)
        assert content.experiment.hparam_infos[0].domain_interval.max_value == 4
    before = head.stat().st_mtime_ns
    TensorBoardFolder(SEARCH, tmp_path / "all", tmp_path / "best")
    assert head.stat().st_mtime_ns == before and [*(tmp_path / "all").iterdir()] == [head]


def test_running_trials_are_not_written(folder):
    assert not (folder / "all" / "00007").exists()


def test_only_the_best_are_among_the_best(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "NUM_BEST", 3)
    trials = some_trials(30)
    written = TensorBoardFolder(SEARCH, tmp_path / "all", tmp_path / "best")
    for num in (10, 29):
        written.update(trials[:num], False)
        TensorBoardFolder(SEARCH, tmp_path / "all", tmp_path / "best").update(trials[:num], True)
        done = [trial for trial in trials[:num] if trial.status == "ok"]
        best = sorted(done, key=lambda trial: trial.validation_mAP)[-3:]
        folders = {path.name for path in (tmp_path / "best").iterdir() if path.is_dir()}
        assert folders == {f"{trial.number:05d}" for trial in best}


def test_a_killed_write_is_made_good(tmp_path):
    half = tmp_path / "all" / "00000"
    half.mkdir(parents=True)
    (half / ".part").write_bytes(b"half")
    TensorBoardFolder(SEARCH, tmp_path / "all", tmp_path / "best").update([ended(0)], False)
    assert [path.name for path in half.iterdir()] == [EVENTS]
    assert running(0).has_ended is False
