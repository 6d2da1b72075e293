"""Signals against real processes: jobs with and without Ray, and small ones that misbehave."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from small_run import write_small_run
from tiny_clip import write_tiny_clip

from t2ipal.commands.stopping import GO_ON, SIGNALS
from t2ipal.search.results import SearchFolder
from t2ipal.store import Store

ROOT = Path(__file__).parents[2]
SLOW_S = 15
"""A job ends in 5 s; here other tests run beside it."""


class Started:
    """A process in a session of its own, so that all that it starts can be found."""

    def __init__(self, folder, *command, cwd, on_interrupt=signal.SIG_DFL):
        self.errors = folder / "stderr"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                cwd=cwd,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, on_interrupt),
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            )

    def wait_for(self, sign, timeout_s=300):
        deadline = time.monotonic() + timeout_s
        while not sign():
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < deadline, "no sign of progress"
            time.sleep(0.05)

    def stop(self, number):
        """Sends a signal; gives the exit code and the seconds that it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(60), time.monotonic() - started

    def members(self):
        """The processes of its session."""
        members = []
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, psutil.Error):
                zombie = process.status() == psutil.STATUS_ZOMBIE
                if os.getsid(process.pid) == self.process.pid and not zombie:
                    members.append(process)
        return members

    def left(self):
        """Those that are still there some seconds later."""
        return psutil.wait_procs(self.members(), timeout=5)[1]


@pytest.fixture
def start(tmp_path):
    """Starts a process, and ends what a failed test leaves of it."""
    started = []

    def run(*command, **options):
        started.append(Started(tmp_path, *command, **options))
        return started[-1]

    yield run
    for each in started:
        for process in each.members():
            process.kill()
        each.process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run without features, a CLIP and a space."""
    folder = tmp_path_factory.mktemp("run")
    write_small_run(folder / "run", images_per_caption=1)
    write_tiny_clip(folder / "clip")
    (folder / "space.yaml").write_text(SPACE)
    return folder


SPACE = """
searcher: grid
space:
  method.sharpness: {grid: [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]}
"""
MANY = "--methods tai_dpt --set training.num_epochs=2 --seeds " + " ".join(map(str, range(99)))
JOBS = {
    "loading": ("evaluate", "run", signal.SIGTERM),
    "training": (f"train --num-workers 0 {MANY}", "run/train/*/history.json", signal.SIGINT),
    "Ray Train": (f"train --output train {MANY}", "train/*/history.json", signal.SIGTERM),
    "Ray Tune": (
        "tune --space space.yaml --population 1 --max-populations 1 --set training.num_epochs=3",
        "run/search/populations/00001.json",
        signal.SIGINT,
    ),
}
"""What a job is at -> its words, a file that is there by then, and the signal."""


@pytest.mark.parametrize("at", JOBS)
def test_a_job_ends_with_one_line(start, folder, at):
    words, sign, number = JOBS[at]
    job, *options = [*words.split(), "--run", "run", "--model", folder / "clip"]
    process = start(ROOT / "jobs" / f"{job}.py", *options, cwd=folder)
    time.sleep(0.5)
    process.wait_for(lambda: any(folder.glob(sign)))
    code, seconds = process.stop(number)
    assert code == 128 + number and seconds < SLOW_S
    said = process.errors.read_text()
    line = f"{GO_ON} (evaluate begins anew)" if job == "evaluate" else GO_ON
    assert said.splitlines()[-1] == line and said.count(GO_ON) == 1 and "Traceback" not in said
    assert process.left() == []
    if at == "Ray Tune":  # the table has what was finished
        search = SearchFolder(Store(folder / "run"), "search")
        assert "ok" in {trial.status for trial in search.trials()}
        assert search.status() == "ended" and (folder / "run/search/trials.csv").exists()


SCRIPT = """
import os, signal, subprocess, sys, time
from t2ipal.commands.stopping import ended_by_signals

def ready():
    open("ready", "w").close()

with ended_by_signals():
    {}
"""
SLEEP = "ready(); time.sleep(60)"
SWALLOW = """
    ready()
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""
BAD = {
    "swallows what the handler raises": SWALLOW,
    "makes an error of it": """
    try:
        ready(); time.sleep(60)
    except KeyboardInterrupt:
        raise ImportError("half loaded")
""",
    "has handlers of its own": f"""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: sys.exit(number))
    {SLEEP}
""",
    "waits for a thread": """
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, 60)
        ready()
""",
    "has children": f"""
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    {SLEEP}
""",
    "ended a forked child": f"""
    if child := os.fork():
        time.sleep(0.3); os.kill(child, signal.SIGTERM); os.wait()
        time.sleep(0.3)
    {SLEEP}
""",
    "shows a bar": f"""
    from tqdm import tqdm
    bar = tqdm(total=3)
    {SLEEP}
""",
}
"""What a job does that makes it hard to end."""


@pytest.mark.parametrize("number, what", [*zip(itertools.cycle(SIGNALS), BAD)])
def test_a_job_that_is_hard_to_end(start, tmp_path, what, number):
    process = start("-c", SCRIPT.format(BAD[what]), cwd=tmp_path)
    process.wait_for((tmp_path / "ready").exists)
    children = psutil.Process(process.process.pid).children(recursive=True)
    code, seconds = process.stop(number)
    assert code == 128 + number and seconds < SLOW_S
    *before, said = process.errors.read_text().splitlines()
    assert said == GO_ON and (what == "shows a bar" or before == [])
    assert psutil.wait_procs(children, timeout=5)[1] == []


def test_the_second_signal_ends_it_at_once(start, tmp_path):
    process = start("-c", SCRIPT.format(SWALLOW), cwd=tmp_path)
    process.wait_for((tmp_path / "ready").exists)
    process.process.send_signal(signal.SIGINT)
    process.wait_for(process.errors.read_text)
    time.sleep(0.3)
    code, seconds = process.stop(signal.SIGTERM)
    assert code == 130 and seconds < 1
    assert process.errors.read_text() == f"{GO_ON}\n"


def test_a_job_in_the_background_does_not_hear_of_ctrl_c(start, tmp_path):
    process = start("-c", SCRIPT.format(SLEEP), cwd=tmp_path, on_interrupt=signal.SIG_IGN)
    process.wait_for((tmp_path / "ready").exists)
    process.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.stop(signal.SIGTERM)[0] == 143
