"""The one entry point: `t2ipal JOB`, and jobs/JOB.py, which is the same."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from t2ipal.commands.main import COMMANDS
from t2ipal.commands.running import run_job

ROOT = Path(__file__).parents[2]
LOOK = """
import atexit, sys
heavy = ("torch", "ray", "diffusers", "open_clip", "boto3", "pyarrow")
atexit.register(lambda: print("LOADED", [name for name in heavy if name in sys.modules]))
from t2ipal.commands.main import main
sys.argv = ["t2ipal", *sys.argv[1:]]
main()
"""


def t2ipal(*words, code=LOOK):
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize("job", COMMANDS)
def test_help_loads_no_model_and_no_cluster(job):
    done = t2ipal(job, "--help")
    assert done.returncode == 0, done.stderr
    assert f"t2ipal {job}" in done.stdout and "--" in done.stdout
    loaded = {*done.stdout.splitlines()[-1].split("'")}
    heavy = {"torch", "ray", "diffusers", "open_clip"}
    if job == "pretrain_pictovoc":  # its configs lie beside the models
        heavy -= {"torch"}
    assert not heavy & loaded


def test_the_list_of_jobs():
    done = t2ipal()
    assert done.returncode == 0 and all(job in done.stdout for job in COMMANDS)
    assert done.stdout.splitlines()[-1] == "LOADED []"
    assert t2ipal("--help").stdout == done.stdout


def test_an_unknown_job_names_the_nearest():
    done = t2ipal("trian")
    assert done.returncode == 2 and "LOADED []" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: Unknown job 'trian'. Did you mean 'train'?")


def test_a_mistake_is_one_line_either_way(tmp_path):
    words = ["train", "--run", str(tmp_path), "--max-failures", "-1"]
    named, launched = t2ipal(*words), [sys.executable, str(ROOT / "jobs" / "train.py"), *words[1:]]
    launched = subprocess.run(launched, capture_output=True, text=True, timeout=60)
    for done in (named, launched):
        assert done.returncode == 2
        assert done.stderr == "error: max_failures must be >= 0, got -1.\n"
    dashed = t2ipal("pretrain-pictovoc", "--help")  # as people write it
    assert dashed.returncode == 0 and "usage: t2ipal pretrain_pictovoc" in dashed.stdout


def test_what_a_job_raises_decides_how_it_ends(capsys):
    def failing(error):
        raise error

    for error, code, said in (
        (ValueError("a\n  b"), 2, "error: a b\n"),
        (FileNotFoundError("gone"), 2, "error: gone\n"),
        (RuntimeError("lost"), 2, "error: lost\n"),
        (KeyboardInterrupt(), 130, "stopped; run the same command again to go on\n"),
    ):
        with pytest.raises(SystemExit) as stopped:
            run_job(partial(failing, error))
        assert stopped.value.code == code and capsys.readouterr().err == said
