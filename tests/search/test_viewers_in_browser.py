"""TensorBoard and optuna-dashboard as people open them: in Chromium, on a search that runs."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from search_trials import SEARCH, some_trials

from t2ipal.search.viewers import Viewers

SERVERS = {
    "tensorboard": "from tensorboard.main import run_main; run_main()",
    "optuna_dashboard": "from optuna_dashboard._cli import main; main()",
}
SHOTS = os.environ.get("T2IPAL_SCREENSHOTS")
"""Folder for pictures of the pages, for people to look at."""


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    Viewers(SEARCH, folder).update(some_trials(60), final=True)
    return folder


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    yield page
    page.close()


@contextmanager
def server(package, *arguments):
    """The address of a viewer that runs."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 't2ipal[dashboards]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVERS[package], *map(str, arguments)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address, begun = f"http://127.0.0.1:{port}", time.monotonic()
    try:
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() - begun < 60
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


def picture(page, name):
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


def test_tensorboard_shows_the_trials(search, page):
    with server("tensorboard", "--logdir", search / "tensorboard") as address:
        page.goto(f"{address}/#hparams")
        page.get_by_text("method.residual_ratio").first.wait_for()
        for text in ("00000", "00003", "75.800"):  # the score of trial 58
            page.get_by_text(text, exact=True).first.wait_for()
        picture(page, "tensorboard-hparams")
        page.goto(f"{address}/#timeseries")
        page.get_by_text("validation_mAP", exact=True).first.wait_for()
        picture(page, "tensorboard-curves")


def test_optuna_dashboard_shows_the_trials(search, page):
    with server("optuna_dashboard", search / "optuna.journal") as address:
        page.goto(f"{address}/dashboard/studies/0/trials?numbers=3")
        page.get_by_text("60 Trials").wait_for()
        page.get_by_text("loss is nan at epoch 2").wait_for()
        picture(page, "optuna-trial")
        page.goto(f"{address}/dashboard/studies/0/trials?numbers=59")
        page.get_by_text("Running").first.wait_for()
        page.goto(f"{address}/dashboard/studies/0")
        page.get_by_text("Hyperparameter Importance").first.wait_for()
        picture(page, "optuna-study")
