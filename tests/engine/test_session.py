import os
from pathlib import Path

import pytest
import ray

from t2ipal.engine.session import _provide_token, _runtime_env, connect
from t2ipal.places import runs_as_submitted_job

ROOT = Path(__file__).parents[2]


def test_an_open_session_is_used_and_left_open(ray_session):
    with connect() as resources:
        assert resources["CPU"] == 2
    assert ray.is_initialized()


def test_workers_of_a_private_ray_find_the_checkout(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    path = _runtime_env("local")["env_vars"]["PYTHONPATH"]
    assert path.split(os.pathsep) == [str(ROOT), "/somewhere"]
    monkeypatch.delenv("PYTHONPATH")
    assert _runtime_env("local")["env_vars"]["PYTHONPATH"] == str(ROOT)


def test_a_joined_cluster_gets_the_package_unless_the_job_brought_it(monkeypatch):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert not runs_as_submitted_job()
    assert _runtime_env("auto") == {"py_modules": [str(ROOT / "t2ipal")]}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert runs_as_submitted_job()
    assert _runtime_env("10.0.0.1:6379") == {}


def test_the_users_choice_of_token_stands(monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    _provide_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # so that monkeypatch takes away what is set next
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    _provide_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


@pytest.mark.parametrize("kind", ["ValueError", "KeyError"])
def test_the_block_s_error_comes_through(ray_session, kind):
    error = {"ValueError": ValueError, "KeyError": KeyError}[kind]
    with pytest.raises(error), connect():
        raise error("inside")
