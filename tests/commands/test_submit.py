"""A real Ray head with a token, and `ray job submit` of the synthesis job against it."""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import use_credentials
from ray_head import RAY
from small_run import write_small_run
from tiny_clip import write_tiny_clip
from tiny_stable_diffusion import write_tiny_stable_diffusion

from t2ipal.store import Store, committed_shards, read_manifest
from t2ipal.training.runs import load_run

ROOT = Path(__file__).parents[2]


def submit(head, *arguments, variables=None):
    command = [RAY, "job", "submit", "--address", head.address, "--working-dir", str(ROOT)]
    if variables:
        command += ["--runtime-env-json", json.dumps({"env_vars": variables})]
    return subprocess.run(
        [*command, "--", *arguments],
        env=head.environment,
        capture_output=True,
        text=True,
        timeout=180,
        cwd=ROOT,
    )


def test_a_submitted_job_stores_its_shards(head, tmp_path):
    pipeline = write_tiny_stable_diffusion(tmp_path / "pipeline")
    (tmp_path / "captions.txt").write_text("a dog on a boat\na red house\ntwo cats\na bus\n")
    arguments = f"""{sys.executable} jobs/synthesize.py --captions {tmp_path}/captions.txt
        --output {tmp_path}/run --pipeline {pipeline} --num-inference-steps 1
        --images-per-shard 2 --min-workers 1""".split()
    done = submit(head, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    summary = json.loads(line)
    assert (summary["num_captions"], summary["num_images"], summary["num_rejected"]) == (3, 3, 1)
    store = Store(tmp_path / "run")
    assert [marker.num_rows for marker in committed_shards(store)] == [2, 1]
    assert read_manifest(store).num_images == 3


def test_a_submitted_training_ends_in_the_bucket(head, swift, tmp_path, monkeypatch):
    """Whatever machine it ran on may vanish: recognizers and features are in the run."""
    import boto3

    use_credentials(monkeypatch, swift.access_key, swift.secret_key)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    variables = {name: os.environ[name] for name in names}
    boto3.client("s3", endpoint_url=swift.url).create_bucket(Bucket="submitted")
    write_small_run(tmp_path / "run", images_per_caption=1)
    write_tiny_clip(tmp_path / "clip")
    store = Store("s3://submitted/run", swift.url)
    for path in (path for path in (tmp_path / "run").rglob("*") if path.is_file()):
        store.write(path.relative_to(tmp_path / "run").as_posix(), path.read_bytes())
    train = f"{sys.executable} jobs/train.py"
    arguments = f"""--run {store.uri} --endpoint-url {swift.url} --model {tmp_path}/clip
        --methods tai_dpt --seeds 0 --set training.num_epochs=2""".split()
    # Refused at once, and then right: two commands of one job.
    both = f"! {train} --run runs/x && {train} {shlex.join(arguments)}"
    done = submit(head, "sh", "-c", both, variables=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run must be s3:// or an absolute path, got 'runs/x'" in done.stdout + done.stderr
    assert f'"output": "{store.uri}/train"' in done.stdout
    assert len(load_run(store, "train/tai_dpt-seed0").history) == 2
    assert store.list("features/") and not list(ROOT.glob("s3:*"))


def test_a_wrong_token_is_refused(head):
    other = dataclasses.replace(head, token="0" * 32)
    done = submit(other, sys.executable, "-c", "print('ran')")
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert "ran" not in output.splitlines()
    assert "401" in output or "token" in output.lower()
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        request = urllib.request.Request(f"{head.address}/api/jobs/", headers=headers)
        with pytest.raises(urllib.error.HTTPError, match=r"40[13]"):
            urllib.request.urlopen(request, timeout=5)


def test_a_relative_output_of_a_submitted_job_is_refused(monkeypatch):
    from t2ipal.commands.synthesize import main

    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ValueError, match=r"output must be s3:// or an absolute path, got 'runs/x'"):
        main(["--captions", "none.txt", "--output", "runs/x"])
