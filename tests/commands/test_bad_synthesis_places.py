"""Places that fail a synthesis: named, what was finished stays, and the run goes on afterwards."""

import errno
import os
import re
import threading
import traceback
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import use_credentials
from painter import GIVEN, Painter, contents, painted_run, refusal

from benchmarks.chaos.checks import run_contents
from t2ipal.commands import status, synthesize
from t2ipal.store import Store, buckets


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return painted_run(tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original, monkeypatch):
    """Its folder as the working directory."""
    monkeypatch.chdir(original)
    monkeypatch.setattr("t2ipal.diffusion.synthesizer.Synthesizer", Painter)
    return original


def failing(monkeypatch, code, num_right):
    """Lets the disk fail for good after some files of images; gives back how to mend it."""
    right = os.fsync
    left = [num_right]

    def fsync(descriptor):
        if "/images/" in os.readlink(f"/proc/self/fd/{descriptor}"):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(code, os.strerror(code))
        right(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return partial(monkeypatch.setattr, os, "fsync", right)


FAILURES = [
    (
        errno.ENOSPC,
        r"No space left in {images}: 00001\.tar needs [\d,]+ bytes, [\d,]+ are free\. What was "
        r"written before is kept: make room and run the same command again\.",
    ),
    (
        errno.EDQUOT,
        r"No space left in {images}: 00001\.tar needs [\d,]+ bytes, [\d,]+ are free\. What was "
        r"written before is kept: make room and run the same command again\.",
    ),
    (
        errno.EROFS,
        r"Cannot write to {images} \(Read-only file system\)\. What was written before is kept: "
        r"make it writable and run the same command again\.",
    ),
    (errno.EIO, r"Cannot write {images}/00001\.tar \(Input/output error\)\."),
]


@pytest.mark.parametrize(("code", "message"), FAILURES)
def test_a_disk_that_fails_half_way(folder, tmp_path, monkeypatch, code, message):
    new = tmp_path / "new"
    mend = failing(monkeypatch, code, num_right=3)  # tar, sidecar and marker of the first shard
    shown = refusal(synthesize.main, f"{GIVEN} {new}")
    assert re.fullmatch(message.replace("{images}", re.escape(f"{new}/images")), shown)
    stored = {path.name: data for path, data in contents(new / "images").items()}
    assert {*stored} == {"00000.tar", "00000.parquet", "00000.json"}
    mend()
    summary = synthesize.main(f"{GIVEN} {new}".split())
    assert (summary["num_shards"], summary["num_shards_skipped"]) == (2, 1)
    assert {p.name: d for p, d in contents(new / "images").items() if p.name in stored} == stored
    assert run_contents(Store(new)) == run_contents(Store(folder / "run"))


PLACES = [
    ("captions.txt", "Cannot write to {here}/captions.txt (File exists). Choose another folder."),
    (
        "captions.txt/a/b",
        "Cannot write to {here}/captions.txt/a/b (Not a directory). Choose another folder.",
    ),
    ("/proc/t2ipal", "Cannot write /proc/t2ipal/config.json (No such file or directory)."),
    ("file://", "output must be a local path or s3://..., got 'file://'."),
    ("gs://bucket/run", "output must be a local path or s3://..., got 'gs://bucket/run'."),
    ("s3:///run", "An S3 store is s3://bucket/prefix, got 's3:///run'."),
    (
        "s3://runs/x --endpoint-url localhost:9000",
        "endpoint_url must be http://host:port or https://host:port, got 'localhost:9000'.",
    ),
    (
        "s3://runs/x --endpoint-url http://key:very-secret@host",
        "endpoint_url must hold no name or password: set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY in their place.",
    ),
]


def test_no_place_is_not_the_working_directory(folder):
    """As `--output "$RUN"` gives where the variable is not set."""
    before = contents(folder)
    with pytest.raises(ValueError, match=r"^A store is a local path or s3://\.\.\., got ''\.$"):
        synthesize.main([*GIVEN.split(), ""])
    assert contents(folder) == before


@pytest.mark.parametrize(("place", "message"), PLACES)
def test_a_place_that_is_no_store(folder, place, message):
    before = contents(folder)
    shown = refusal(synthesize.main, f"{GIVEN} {place}")
    assert shown == message.replace("{here}", str(folder))
    assert contents(folder) == before


class Refusing(BaseHTTPRequestHandler):
    """Answers each request with the status and the code of its server."""

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        status, code, headers = self.server.reply  # type: ignore[attr-defined]
        body = f"<Error><Code>{code}</Code><AWSAccessKeyId>AKIAKEY</AWSAccessKeyId></Error>"
        body = (body if code else "<html>Not here</html>").encode()
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = answer

    def log_message(self, format, *args):
        """Keeps the test's output clean."""


REFUSED = r"Access to s3://runs/x/\S+ was refused \({code}\)\. "
RENEW = r"Get new credentials and run the same command again: what was written before is kept\."
REGION = {"x-amz-bucket-region": "eu-west-1"}
ELSEWHERE = r"Bucket 'runs' is in another region, eu-west-1\. Set AWS_DEFAULT_REGION=eu-west-1\."
KEY = (
    r"Check AWS_ACCESS_KEY_ID, or the profile, and whether endpoint_url is the server that knows "
    r"it\."
)
REPLIES = [
    (403, "InvalidAccessKeyId", {}, REFUSED + KEY),
    (
        403,
        "SignatureDoesNotMatch",
        {},
        REFUSED + r"Check AWS_SECRET_ACCESS_KEY: it does not belong to the access key\.",
    ),
    (403, "AccessDenied", {}, REFUSED + r"Check the credentials and their rights\."),
    (
        403,
        "RequestTimeTooSkewed",
        {},
        REFUSED + r"Check the clock of this machine: it is too far from the server's\.",
    ),
    (400, "ExpiredToken", {}, REFUSED + RENEW),
    (301, "PermanentRedirect", REGION, ELSEWHERE),
    (
        403,
        "QuotaExceeded",
        {},
        r"No space left in bucket 'runs' \({code}\)\. What was written before is kept: make room "
        r"and run the same command again\.",
    ),
    (404, "NoSuchBucket", {}, r"No bucket 'runs'\. Create it first, or check the address\."),
    (
        404,
        "",
        {},
        r"What answers for s3://runs/x/\S+ is no S3 server \(status 404\)\. Check endpoint_url\.",
    ),
    (
        400,
        "KeyTooLongError",
        {},
        r"The store did not take the request for s3://runs/x/\S+ \({code}\)\.",
    ),
]


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        use_credentials(patch, "AKIAKEY", "very-secret")
        yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("status", "code", "headers", "message"), REPLIES)
def test_a_server_that_refuses(folder, server, status, code, headers, message):
    server.reply = (status, code, headers)
    before, url = contents(folder), f"http://127.0.0.1:{server.server_port}"
    with pytest.raises(OSError) as caught:
        synthesize.main(f"{GIVEN} s3://runs/x --endpoint-url {url}".split())
    assert re.fullmatch(message.replace("{code}", code), str(caught.value))
    shown = "".join(traceback.format_exception(caught.value))
    assert "very-secret" not in shown and "AKIAKEY" not in shown
    assert contents(folder) == before


def test_captions_of_a_server_that_refuses(folder, server):
    """They are asked of the server that was named, not of AWS."""
    server.reply = (403, "AccessDenied", {})
    url = f"http://127.0.0.1:{server.server_port}"
    for name in ("a.txt", "a.parquet"):
        with pytest.raises(PermissionError, match=rf"Access to s3://caps/{name} was refused"):
            synthesize.main(
                f"--captions s3://caps/{name} --output run --endpoint-url {url}".split()
            )


def test_a_server_that_is_not_there(folder, server, monkeypatch):
    monkeypatch.setattr(buckets, "MAX_ATTEMPTS", 1)
    shown = refusal(status.main, "--run s3://runs/x --endpoint-url http://127.0.0.1:9")
    assert re.fullmatch(
        r"Cannot reach s3://runs/x/sections/: Could not connect to the endpoint URL: "
        r'"http://127\.0\.0\.1:9/runs\?[^"]+"',
        shown,
    )
    assert "very-secret" not in shown and "AKIAKEY" not in shown
