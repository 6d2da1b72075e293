import json

import pytest

from t2ipal.commands import doctor
from t2ipal.doctor.findings import ok, wrong


@pytest.fixture
def sound(monkeypatch):
    """A machine on which all is well, without a cluster."""
    for name in ("check_packages", "check_gpus", "check_shared_memory", "check_disk",
                 "check_open_files"):  # fmt: skip
        monkeypatch.setattr(doctor, name, lambda *_, check=name: ok(check, "well"))
    for name in ("RAY_ADDRESS", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_without_a_cluster(sound, tmp_path, capsys):
    summary = doctor.main(["--output", str(tmp_path / "run"), "--cluster", str(tmp_path / "none")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok             check_packages: well"
    assert [line[:14].strip() for line in lines[5:8]] == ["not looked at", "not looked at", "ok"]
    assert json.loads(lines[-1]) == summary and summary["ok"]
    assert len(summary["findings"]) == len(lines) - 1 == 8


def test_what_is_wrong_gives_the_exit_code(sound, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "check_disk", lambda: wrong("disk", "full"))
    with pytest.raises(SystemExit) as ended:
        doctor.main(["--address", "127.0.0.1:1", "--cluster", str(tmp_path / "none")])
    assert ended.value.code == 1
    output = capsys.readouterr().out
    assert "wrong          disk: full" in output
    assert "wrong          cluster: No Ray cluster answers at 127.0.0.1:1 (Connection" in output
    assert json.loads(output.splitlines()[-1])["num_wrong"] == 2


def test_secrets_are_not_shown(sound, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "token-very-secret")
    words = ["--output", "s3://runs/x", "--endpoint-url", "http://127.0.0.1:1"]
    with pytest.raises(SystemExit):
        doctor.main([*words, "--address", "http://127.0.0.1:1", "--cluster", str(tmp_path / "no")])
    output = capsys.readouterr()
    assert "No server answers at http://127.0.0.1:1" in output.out
    assert "very-secret" not in output.out + output.err
