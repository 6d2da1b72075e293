"""What TensorBoard shows of a search: a folder of events for each trial, written when it ends.

The HParams page takes its columns from one file at the top, so that it is the same whichever trials
are there. Knows nothing of how TensorBoard is started.
"""

import json
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from t2ipal.search.results import Trial, ranked
from t2ipal.search.space import Dimension, SearchConfig

EVENTS = "events.out.tfevents.0.t2ipal"
"""The only file of each folder: the same name each time, so that none is ever there twice."""
NUM_BEST = 50
METRICS = ("validation_mAP", "loss", "images", "seconds")
"""Of the HParams page, where each has `hparam/` before it."""


class TensorBoardFolder:
    """Writes the events of trials that have ended; what is there already stays."""

    def __init__(self, search: SearchConfig, folder: Path, best_folder: Path):
        """Goes on with what is there.

        Args:
            search: that the trials are of.
            folder: for all trials.
            best_folder: for the best, whose curves TensorBoard draws at once however many there
                are.
        """
        self._search, self._folder, self._best_folder = search, folder, best_folder
        for each in (folder, best_folder):
            each.mkdir(parents=True, exist_ok=True)
            # What is there may be of another space, where a first start tried nothing.
            _write(each / EVENTS, [(0.0, 0, _columns(search))])
        self._written = {path.parent.name for path in folder.glob(f"*/{EVENTS}")}
        self._best = {path.parent.name for path in best_folder.glob(f"*/{EVENTS}")}

    def update(self, trials: Sequence[Trial], final: bool) -> None:
        """Writes those that ended since the last time."""
        new = [t for t in trials if t.has_ended and _name(t) not in self._written]
        for trial in new:
            self._keep(self._folder, trial)
            self._written.add(_name(trial))
        if new or final:
            self._keep_best(trials)

    def _keep_best(self, trials: Sequence[Trial]) -> None:
        wanted = {_name(trial): trial for trial in ranked(self._search, trials)[:NUM_BEST]}
        for name in wanted.keys() - self._best:
            self._keep(self._best_folder, wanted[name])
        for name in self._best - wanted.keys():
            (self._best_folder / name / EVENTS).unlink()
            (self._best_folder / name).rmdir()
        self._best = {*wanted}

    def _keep(self, folder: Path, trial: Trial) -> None:
        (folder / _name(trial)).mkdir(exist_ok=True)
        _write(folder / _name(trial) / EVENTS, _events(self._search, trial))


def _name(trial: Trial) -> str:
    """Of its folder."""
    return f"{trial.number:05d}"


def _write(path: Path, events: Sequence[tuple[float, int, Any]]) -> None:
    """A whole file or none, of events as (seconds since 1970, step, summary); the same stays."""
    from tensorboardX.record_writer import RecordWriter

    event = _messages().Event
    part = path.with_name(".part")  # a name that TensorBoard does not read
    writer = RecordWriter(str(part))
    writer.write(event(wall_time=events[0][0], file_version="brain.Event:2").SerializeToString())
    for time_s, step, summary in events:
        writer.write(event(wall_time=time_s, step=step, summary=summary).SerializeToString())
    writer.close()
    if path.exists() and path.read_bytes() == part.read_bytes():
        part.unlink()
    else:
        os.replace(part, path)


@cache
def _messages() -> Any:
    """TensorBoard's, by their names: their modules make them when they are loaded."""
    from tensorboardX.proto import api_pb2, event_pb2, plugin_hparams_pb2, summary_pb2

    modules = api_pb2, event_pb2, plugin_hparams_pb2, summary_pb2
    return SimpleNamespace(**{name: kind for each in modules for name, kind in vars(each).items()})


def _columns(search: SearchConfig) -> Any:
    """Names, kinds and ranges of the HParams page's columns."""
    make, infos = _messages(), []
    for dimension in search.dimensions:
        kind, values = _kind(dimension), [_value(dimension, v) for v in dimension.values]
        info = make.HParamInfo(name=dimension.path, type=f"DATA_TYPE_{kind}")
        if dimension.kind in ("grid", "choice"):
            info.domain_discrete.extend(values)
        else:
            info.domain_interval.min_value, info.domain_interval.max_value = values
        infos.append(info)
    metrics = [
        make.MetricInfo(name=make.MetricName(tag=f"hparam/{m}"), display_name=m) for m in METRICS
    ]
    columns = make.Experiment(hparam_infos=infos, metric_infos=metrics)
    return _hparams("experiment", experiment=columns)


def _events(search: SearchConfig, trial: Trial) -> list[tuple[float, int, Any]]:
    """All that is told of a trial."""
    from tensorboardX.summary import text

    make = _messages()
    begun_s, ended_s = trial.started_s or 0.0, trial.ended_s or trial.started_s or 0.0
    session = make.SessionStartInfo(group_name=_name(trial), start_time_secs=begun_s)
    for dimension in search.dimensions:
        if dimension.path in trial.values:
            value = _value(dimension, trial.values[dimension.path])
            kind = {"BOOL": "bool_value", "STRING": "string_value"}.get(_kind(dimension))
            setattr(session.hparams[dimension.path], kind or "number_value", value)
    status = "STATUS_FAILURE" if trial.status == "failed" else "STATUS_SUCCESS"
    end = make.SessionEndInfo(status=status, end_time_secs=ended_s)
    curves = [*_curves(trial)]
    last = max((step for _, step, _ in curves), default=1)
    events = [(begun_s, 0, _hparams("session_start_info", session_start_info=session))]
    for name, step, number in curves:
        time_s = begun_s + (ended_s - begun_s) * step / last
        events.append((time_s, step, _scalar(name, number)))
    for name in METRICS:
        if (number := getattr(trial, name)) is not None:
            events.append((ended_s, last, _scalar(f"hparam/{name}", number)))
    if trial.reason:
        events.append((ended_s, last, text("reason", trial.reason)))
    return [*events, (ended_s, last, _hparams("session_end_info", session_end_info=end))]


def _curves(trial: Trial) -> Iterator[tuple[str, int, float]]:
    """(name, epochs done, number) of every point."""
    yield from (("validation_mAP", epochs, score) for epochs, score in trial.scores)
    yield from (("loss", n, loss) for n, loss in enumerate(trial.losses, 1) if loss is not None)


def _scalar(name: str, number: float) -> Any:
    make = _messages()
    return make.Summary(value=[make.Summary.Value(tag=name, simple_value=number)])


def _hparams(kind: str, **content: Any) -> Any:
    """A summary for the HParams page."""
    make = _messages()
    data = make.HParamsPluginData(**content).SerializeToString()
    plugin = make.SummaryMetadata.PluginData(plugin_name="hparams", content=data)
    metadata = make.SummaryMetadata(plugin_data=plugin)
    return make.Summary(value=[make.Summary.Value(tag=f"_hparams_/{kind}", metadata=metadata)])


def _kind(dimension: Dimension) -> str:
    """Of a column: all its values are of it."""
    if all(isinstance(value, bool) for value in dimension.values):
        return "BOOL"
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in dimension.values)
    return "FLOAT64" if numbers else "STRING"


def _value(dimension: Dimension, value: Any) -> Any:
    """As its column has it."""
    if _kind(dimension) == "STRING":
        return value if isinstance(value, str) else json.dumps(value)
    return bool(value) if _kind(dimension) == "BOOL" else float(value)
