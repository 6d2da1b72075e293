import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from small_search import write_search

from t2ipal.commands.dashboard import main
from t2ipal.dashboard import snapshot
from t2ipal.store import Store

ROOT = Path(__file__).parents[2]


def test_serves_until_it_is_interrupted(tmp_path):
    write_search(Store(tmp_path / "run"), num_trials=8)
    command = [sys.executable, "jobs/dashboard.py", "--run", str(tmp_path / "run")]
    # A shell lets what it starts in the background ignore Ctrl-C, and that is handed down.
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        said = process.stdout.readline()
        address = said.split(": ")[1].split()[0]
        with urllib.request.urlopen(f"{address}state.json") as answer:
            assert json.load(answer)["searches"] == ["search"]
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.splitlines() == ["stopped; run the same command again to go on"]


@pytest.mark.parametrize("folder", ["", "/search"])
def test_writes_the_page_of_each_search(tmp_path, monkeypatch, folder, capsys):
    monkeypatch.setattr(snapshot.Importance, "update", lambda *args, **more: None)
    write_search(Store(tmp_path / "run"), num_trials=8)
    done = main(["--run", f"{tmp_path}/run{folder}", "--write"])
    assert done["pages"] == [f"{tmp_path}/run/search/page.html"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == done
    assert (tmp_path / "run/search/page.html").is_file()


def test_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"Nothing is in {tmp_path}/none. Give the folder"):
        main(["--run", f"{tmp_path}/none"])
    Store(tmp_path / "run").write("config.json", b"{}")
    with pytest.raises(FileNotFoundError, match=r"No search in .*/run. Run jobs/tune.py first"):
        main(["--run", f"{tmp_path}/run", "--write"])
    with pytest.raises(ValueError, match=r"port must be in 0\.\.65535, got -1"):
        main(["--run", f"{tmp_path}/run", "--port", "-1"])
