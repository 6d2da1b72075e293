import re
import socket
import time
from pathlib import Path

import pytest
import ray

from t2ipal.engine import session, waiting
from t2ipal.engine.session import _join, _runtime_env, connect
from t2ipal.places import runs_as_submitted_job

ROOT = Path(__file__).parents[2]


def test_an_open_session_is_used_and_left_open(ray_session):
    with connect() as resources:
        assert resources["CPU"] == 2
    assert ray.is_initialized()


def test_a_joined_cluster_gets_the_package_unless_the_job_brought_it(monkeypatch):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert not runs_as_submitted_job()
    assert _runtime_env() == {"py_modules": [str(ROOT / "t2ipal")]}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert runs_as_submitted_job()
    assert _runtime_env() == {}


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "Connection refused"),
        ("ray://[::1]:1", "Connection refused"),
        ("no-such-host.invalid:6379", r"[\w ]+"),
    ],
)
def test_a_cluster_that_is_not_there(monkeypatch, address, reason):
    monkeypatch.setenv("RAY_ADDRESS", address)
    message = rf"No Ray cluster answers at {re.escape(address)} \({reason}\)\. Check the address"
    with pytest.raises(ConnectionError, match=message):
        _join(address)


def test_a_server_that_is_no_cluster(monkeypatch):
    """Ray would ask it for ten minutes."""
    monkeypatch.setattr(session, "ANSWER_S", 0.2)
    monkeypatch.setattr(waiting, "LOOK_S", 0.05)
    monkeypatch.setattr(session.ray, "init", lambda **options: time.sleep(20))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        message = rf"of waiting for the Ray cluster at {address} to answer. Check RAY_ADDRESS."
        with pytest.raises(RuntimeError, match=message):
            _join(address)


@pytest.mark.parametrize("kind", ["ValueError", "KeyError"])
def test_the_block_s_error_comes_through(ray_session, kind):
    error = {"ValueError": ValueError, "KeyError": KeyError}[kind]
    with pytest.raises(error), connect():
        raise error("inside")
