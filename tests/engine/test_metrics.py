import pytest
from ray.util import metrics

from t2ipal.engine.metrics import MAX_REASONS, Queue, WorkerMeter
from t2ipal.store import Marker, Part, Sample


@pytest.fixture
def told(monkeypatch):
    """(name, tags without the stage) -> what was counted or set, as Ray is told it."""
    values = {}

    def record(metric, value, tags, so_far):
        assert tags["stage"] == "synthesis"
        others = (value for name, value in tags.items() if name != "stage")
        key = (metric.info["name"].removeprefix("t2ipal_"), *others)
        values[key] = so_far * values.get(key, 0) + value

    monkeypatch.setattr(metrics.Counter, "inc", lambda *words: record(*words, 1))
    monkeypatch.setattr(metrics.Gauge, "set", lambda *words: record(*words, 0))
    return values


def row(number, reason=""):
    status = "failed" if reason else "ok"
    return Sample(f"0-{number}", "c", "a dog", (0,), 0, 0, 1, status, reason, "s", 8, 8)


def commit(meter, reasons):
    rows = [row(number, reason) for number, reason in enumerate(reasons)]
    failed = sum(map(bool, reasons))
    marker = Marker("0", {}, "", len(rows), failed, Part("", 70), Part("", 5), 1.0)
    meter.committed(marker, rows)


def test_what_a_worker_tells(told):
    meter = WorkerMeter("synthesis")
    commit(meter, ["", "black", "", "ValueError: got 3", "ValueError: got 4"])
    commit(meter, ["black"])
    meter.spent("draw", 2.0)
    meter.spent("draw", 0.0)
    with pytest.raises(OSError), meter.step("load"):
        raise OSError
    assert told.pop(("stage_seconds_total", "load")) > 0
    assert told == {
        ("workers",): 1,
        ("images_total",): 2,
        ("stored_bytes_total",): 150,
        ("failures_total", "black"): 2,
        ("failures_total", "ValueError"): 2,
        ("stage_seconds_total", "draw"): 2.0,
    }


def test_reasons_are_few_whatever_fails(told):
    meter = WorkerMeter("synthesis")
    letters = "abcdefghijklmnopqrstuvwxyz"
    commit(meter, ["no file /tmp/1", "x" * 50, ": ", *letters, "a"])
    reasons = [reason for name, *tags in told for reason in tags if name == "failures_total"]
    assert reasons == ["other", *letters[:MAX_REASONS]]
    assert told["failures_total", "a"] == 2
    assert told["failures_total", "other"] == 3 + len(letters) - MAX_REASONS


def test_a_driver_tells_what_is_left(told):
    queue = Queue("synthesis", 2)
    assert told == {("pending_items",): 2}
    queue.done()
    queue.done()
    assert told == {("pending_items",): 0}
