"""Nodes of this machine, and how one is drained; `watch_spot` drains a real one."""

from datetime import UTC, datetime

import psutil
import pytest

from t2ipal.engine import draining
from t2ipal.engine.draining import LocalNode, drain, local_node, local_nodes


class Process:
    """What `psutil.process_iter` gives, as far as it is looked at."""

    def __init__(self, *command):
        self.info = {"cmdline": [*command]}


def test_nodes_are_found_by_their_raylets(monkeypatch):
    raylet = "/site-packages/ray/core/src/ray/raylet/raylet"
    processes = [
        Process(),
        Process("/bin/python", "--node_id=no", "--gcs-address=no"),
        Process(raylet, "--node_id=aa", "--gcs-address=10.0.0.1:6379", "--head", "--x=a=b"),
    ]
    monkeypatch.setattr(draining.psutil, "process_iter", lambda fields: processes)
    (node,) = local_nodes()
    assert (node.node_id, node.head) == ("aa", "10.0.0.1:6379")
    assert local_node() == local_node("aa") == node
    with pytest.raises(RuntimeError, match=r"No Ray node bb runs on this machine. Start it first"):
        local_node("bb")
    processes.append(Process(raylet, "--node_id=bb", "--gcs-address=10.0.0.1:6379"))
    with pytest.raises(ValueError, match=r"node_id must name one of the 2 .*: aa, bb\."):
        local_node()


class Client:
    """A head that takes or refuses what it is asked."""

    accepted, asked = (True, ""), None

    def __init__(self, address):
        pass

    def drain_node(self, *request):
        Client.asked = request
        return self.accepted


@pytest.fixture
def node(monkeypatch):
    """One whose head is a `Client`, and says that it drains."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(draining.raylet, "GcsClient", Client)
    monkeypatch.setattr(draining, "_status", lambda node: "DRAINING")
    return LocalNode("aa", "10.0.0.1:6379", psutil.Process())


def test_a_deadline_is_that_of_the_notice(node, monkeypatch):
    drain(node, "EC2 takes it", datetime(2026, 11, 29, tzinfo=UTC))
    assert Client.asked == ("aa", 2, "EC2 takes it", 1795910400000)
    drain(node, "it is likely", None)
    assert Client.asked == ("aa", 2, "it is likely", 0)
    monkeypatch.setattr(Client, "accepted", (False, "it works"))
    with pytest.raises(RuntimeError, match=r"refused to drain the node: it works"):
        drain(node, "", None)


def test_a_node_that_the_head_does_not_know_yet(node, monkeypatch):
    """The head says yes, and does nothing."""
    monkeypatch.setattr(draining, "DRAIN_S", 0.0)
    for status in (None, "IDLE"):
        monkeypatch.setattr(draining, "_status", lambda node, status=status: status)
        with pytest.raises(RuntimeError, match=r"took the request, and nothing drains"):
            drain(node, "", None)
