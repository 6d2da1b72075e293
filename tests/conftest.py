"""One Ray session for all tests that need one; nothing of it outside its own temporary folder."""

import logging
import os
import secrets
import shutil
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory):
    """Copies of what lies in buckets go to a folder of the tests, not to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def ray_session():
    """A private local Ray with 2 CPUs whose workers can import the package and the tests."""
    import ray

    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & {*os.environ}:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(16)
    # Short, since the path of a Unix socket has at most 107 characters.
    folder = tempfile.mkdtemp(prefix="t2ipal-", dir="/tmp")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    try:
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=200 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
            _temp_dir=folder,
        )
        yield
    finally:
        ray.shutdown()  # ends the processes that it started, by their ids
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def one_thread():
    """As Ray's workers have: more of them may change the last digits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def head():
    """A Ray head of our own, in processes of its own, that takes jobs with a token."""
    from ray_head import ray_head

    with ray_head() as started:
        yield started


@pytest.fixture(scope="module")
def s3_server():
    """An S3 of moto's in this process, and credentials that it takes."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        use_credentials(patch, "key", "very-secret")
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        import boto3

        boto3.client("s3", endpoint_url=url).create_bucket(Bucket="runs")
        yield url
        server.stop()


@pytest.fixture(params=["folder", "bucket"])
def store(request, tmp_path):
    """An empty store, in a folder and in a bucket."""
    from t2ipal.store import Store

    if request.param == "folder":
        return Store(tmp_path / "run")
    url = request.getfixturevalue("s3_server")
    return Store(f"s3://runs/{tmp_path.name}", endpoint_url=url)


@pytest.fixture(scope="session")
def browser():
    """A Chromium without a window."""
    reason = "playwright is not installed: pip install 't2ipal[dev]'"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def swift(tmp_path_factory):
    """An OpenStack Swift of our own."""
    from benchmarks.chaos.servers import swift_missing, swift_server

    if missing := swift_missing():
        pytest.skip(missing)
    with swift_server(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(scope="session")
def ceph(tmp_path_factory):
    """A Ceph of our own, with its S3 gateway."""
    from benchmarks.chaos.servers import ceph_missing, ceph_server

    if missing := ceph_missing():
        pytest.skip(missing)
    with ceph_server(tmp_path_factory.mktemp("ceph")) as server:
        yield server


def use_credentials(patch, access_key, secret_key):
    """Lets boto3 know an S3 server's credentials, and no others."""
    import boto3

    patch.setenv("AWS_ACCESS_KEY_ID", access_key)
    patch.setenv("AWS_SECRET_ACCESS_KEY", secret_key)
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.delenv("AWS_PROFILE", raising=False)
    patch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the credentials that it found first
