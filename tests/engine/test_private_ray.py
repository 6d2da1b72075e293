"""A job's own Ray, wherever the interpreter, the package and TMPDIR lie."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from t2ipal.engine import private_ray
from t2ipal.engine.private_ray import (
    MOST_BYTES,
    _provide_token,
    _python_path,
    _quoting_as_a_shell,
    _runtime_env,
    _temp_dir,
)

ROOT = Path(__file__).parents[2]
PROBE = """
import os, sys
import ray
from t2ipal.engine.session import connect
@ray.remote
def where():
    import t2ipal
    return sys.executable, t2ipal.__file__
with connect():
    for own in ({}, {"env_vars": {"A": "b"}}):  # as Ray Train starts its workers
        print(*ray.get(where.options(runtime_env=own).remote(), timeout=60), sep="\\n")
    print(ray.get_runtime_context().get_temp_dir())
"""


def test_workers_find_the_checkout(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert _python_path().split(os.pathsep) == [str(ROOT), "/somewhere"]
    monkeypatch.delenv("PYTHONPATH")
    assert _python_path() == str(ROOT)
    monkeypatch.setattr(private_ray.t2ipal, "__file__", "/a:b/t2ipal/__init__.py")
    with pytest.raises(ValueError, match=r"cannot import t2ipal from /a:b: no path with ':' can"):
        _python_path()


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


def test_an_interpreter_is_quoted_where_a_shell_would_take_it_apart(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/venv/bin/python")
    assert _runtime_env() == {}
    with _quoting_as_a_shell("/tmp"):
        assert subprocess.list2cmdline(["a b"]) == '"a b"'
    monkeypatch.setattr(sys, "executable", "/it's (my) dir/python")
    assert _runtime_env() == {"py_executable": "'/it'\"'\"'s (my) dir/python'"}
    with _quoting_as_a_shell("/tmp"):
        assert subprocess.list2cmdline(["it's", "a b"]) == shlex.join(["it's", "a b"])
    assert subprocess.list2cmdline(["it's"]) == "it's"


def test_a_temporary_folder_that_ray_can_use_is_taken(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    with _temp_dir() as folder:
        assert folder == "/tmp"
    new = f"/tmp/{tmp_path.parent.parent.name}"[: MOST_BYTES - len("/ray")]
    monkeypatch.setenv("RAY_TMPDIR", new)
    with _temp_dir() as folder:
        assert folder == new


@pytest.mark.parametrize("kind", ["long", "missing", "read-only"])
def test_one_that_it_cannot_use_gives_way_to_a_short_one(monkeypatch, tmp_path, caplog, kind):
    (tmp_path / ("long" * 20)).mkdir()
    place, reason = {
        "long": (tmp_path / ("long" * 20), "its sockets' paths would have"),
        "missing": (Path("/tmp/none-such"), "there is no such folder"),
        "read-only": (Path("/proc"), "/proc cannot be written"),
    }[kind]
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(place))
    with _temp_dir() as folder:
        assert folder.startswith("/tmp/t2ipal-") and Path(folder).is_dir()
    assert not Path(folder).exists()
    (record,) = caplog.records
    assert record.getMessage().startswith(f"Ray cannot use TMPDIR ({place}): {reason}")
    monkeypatch.setattr(private_ray, "SHORT_PLACES", ("/proc", "/sys"))
    message = rf"cannot use {place} \({reason}.*\) nor any of /proc, /sys. Set RAY_TMPDIR to one"
    with pytest.raises(ValueError, match=message), _temp_dir():
        pass
    if kind != "missing":  # Ray makes that one
        monkeypatch.setenv("RAY_TMPDIR", str(place))
        with pytest.raises(ValueError, match=rf"RAY_TMPDIR must be .*, got {place}: {reason}"):
            _temp_dir().__enter__()


def test_everything_in_folders_of_odd_names(tmp_path):
    """An interpreter, the package and TMPDIR, all with letters that a shell knows."""
    home = tmp_path / 'it\'s "my" dir (copy) $HOME \\ *'
    home.mkdir()
    (home / "t2ipal").symlink_to(ROOT / "t2ipal")
    (home / "temporary folder, so long that no socket fits into it").mkdir()
    venv = [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages"]
    subprocess.run([*venv, str(home / "venv")], check=True)
    packages = next((home / "venv" / "lib").iterdir()) / "site-packages"
    packages.rmdir()
    packages.symlink_to(Path(pytest.__file__).parents[1])  # so that Ray lies there too
    environment = {name: v for name, v in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"TMPDIR": str(next(home.glob("temp*"))), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(home / "venv" / "bin" / "python"), "-c", PROBE],
        cwd=home, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *found, folder = done.stdout.splitlines()
    assert found == [str(home / "venv/bin/python"), str(home / "t2ipal/__init__.py")] * 2
    assert folder.startswith("/tmp/t2ipal-") and not Path(folder).exists()
