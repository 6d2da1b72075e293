import json
from datetime import UTC, datetime

import pytest
from metadata_server import metadata_server

from t2ipal.cloud.metadata import Metadata
from t2ipal.cloud.spot import NOTICE, RECOMMENDATION, Notice, read_notice, watch

AT = datetime(2026, 11, 29, 8, 22, tzinfo=UTC)
TERMINATE = json.dumps({"action": "terminate", "time": "2026-11-29T08:22:00Z"})


@pytest.fixture
def server():
    with metadata_server() as started:
        yield started


def test_a_notice_comes_before_a_recommendation(server):
    metadata = Metadata(server.url)
    assert read_notice(metadata) is None
    server.values[RECOMMENDATION] = json.dumps({"noticeTime": "2026-11-29T08:00:00Z"})
    assert read_notice(metadata) == Notice("rebalance", None)
    server.values[NOTICE] = TERMINATE
    notice = read_notice(metadata)
    assert notice == Notice("terminate", AT)
    assert str(notice) == "EC2 will terminate this spot machine at 08:22:00 UTC"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"action": "terminate", "time": "soon"}'])
def test_a_notice_that_cannot_be_read_is_one(server, text):
    server.values[NOTICE] = text
    notice = read_notice(Metadata(server.url))
    assert notice is not None and notice.action == "terminate"
    assert 110 < (notice.at - datetime.now(UTC)).total_seconds() <= 120


def test_each_action_is_handed_on_once_and_errors_are_survived(server, caplog):
    """Looks: nothing, broken twice, recommendation, notice refused, notice, the same, the end."""
    told, pauses, refused = [], [], []

    def on_notice(notice):
        if notice.action == "terminate" and not refused:
            refused.append(notice)
            raise RuntimeError("the head does not answer")
        told.append(notice)

    def sleep(seconds):
        pauses.append(seconds)
        look = len(pauses)
        server.is_broken = look in (1, 2)
        if look == 3:
            server.values[RECOMMENDATION] = "{}"
        if look == 4:
            server.values[NOTICE] = TERMINATE

    done = watch(Metadata(server.url), on_notice, lambda: len(pauses) == 8, 5.0, sleep)
    assert told == done == [Notice("rebalance", None), Notice("terminate", AT)]
    assert refused == [Notice("terminate", AT)]
    assert pauses == [5, 10, 20, 5, 5, 5, 5, 5]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3  # the service fails, answers again; the head does not answer
    assert messages[1].endswith("answers again.")
    assert "cannot be drained yet: the head does not answer" in messages[2]


def test_a_service_that_stays_away_is_asked_less_often():
    pauses = []
    watch(Metadata("http://127.0.0.1:1"), print, lambda: len(pauses) == 6, 5.0, pauses.append)
    assert pauses == [10, 20, 30, 30, 30, 30]
