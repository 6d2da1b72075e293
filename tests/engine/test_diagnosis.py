"""A real head asked what it knows, with the right token and with others."""

import subprocess

import ray

from t2ipal.engine import diagnosis
from t2ipal.engine.diagnosis import check_cluster


def use(monkeypatch, variables):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        if name.startswith("RAY_"):
            monkeypatch.setenv(name, value)


def states(address, pins=None):
    return {each.check: each for each in check_cluster(address, pins or {}, "0")}


def test_a_cluster_that_is_well_but_has_other_packages(head, monkeypatch):
    use(monkeypatch, head.environment)
    found = states(head.gcs, {"ray": "1.0.0"})
    expected = ["address", "token", "versions", "nodes", "launches", "demands"]
    assert [*found][:6] == expected
    assert [found[name].state for name in expected] == ["ok"] * 6
    assert f"Ray {ray.__version__} and Python" in found["versions"].text
    assert found["nodes"].text.startswith("there: 1 machine")
    packages = next(each for name, each in found.items() if name.endswith(" packages"))
    assert packages.state == "wrong"  # found by a worker there
    assert packages.text.startswith(f"ray {ray.__version__} in place of 1.0.0")


def test_tokens(head, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    use(monkeypatch, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32})
    refused = states(head.gcs)
    assert [*refused] == ["address", "token"]
    assert refused["token"].text.startswith("The cluster refuses this token")
    assert "0" * 32 not in refused["token"].text
    use(monkeypatch, {"RAY_AUTH_MODE": "token"})  # Ray itself would end the process
    missing = states(head.gcs)
    assert missing["token"].text.startswith("The cluster wants a token, and none is here")


def test_a_client_that_ends_or_waits_is_told(monkeypatch):
    monkeypatch.setattr(diagnosis.sys, "executable", "/bin/false")
    reply = diagnosis._ask("state", {"address": "a:1"}, 5)
    assert reply == {"error": "Ray ended while it asked a:1: exit code 1"}

    def hang(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(diagnosis.subprocess, "run", hang)
    reply = diagnosis._ask("state", {"address": "a:1"}, 5)
    assert reply == {"error": "a:1 takes more than 5 s to answer."}


def test_an_address_of_another_kind():
    (found,) = check_cluster("ray://127.0.0.1:10001", {}, "0")
    assert found.state == "not looked at"
