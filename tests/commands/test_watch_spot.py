"""The watcher on a machine whose spot notice comes: a real Ray node is drained, and ends."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from metadata_server import metadata_server

from t2ipal.cloud.spot import NOTICE
from t2ipal.commands.watch_spot import main

ROOT = Path(__file__).parents[2]


def test_a_notice_drains_the_node_and_the_watcher_ends_with_it(head):
    with metadata_server() as server, head.node() as node:
        server.most_s = 1.0  # of each token
        command = [sys.executable, "jobs/watch_spot.py", "--node-id", node, "--poll-s", "0.3"]
        watcher = subprocess.Popen(
            [*command, "--metadata-url", server.url],
            env=head.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=ROOT,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 30
            while server.count("PUT") < 2 and watcher.poll() is None:  # a token has ended
                assert time.monotonic() < deadline
                time.sleep(0.1)
            at = datetime.now(UTC) + timedelta(seconds=120)
            server.values[NOTICE] = json.dumps({"action": "terminate", "time": f"{at:%FT%TZ}"})
            output, errors = watcher.communicate(timeout=60)
        finally:
            watcher.kill()
    assert watcher.returncode == 0, output + errors
    first, told, last = output.splitlines()
    assert first == f"Watching for a spot notice of Ray node {node}."
    assert told == f"EC2 will terminate this spot machine at {at:%T} UTC. Drained Ray node {node}."
    assert json.loads(last) == {"node_id": node, "notices": ["terminate"], "drained": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--node-id", "0" * 56], "No Ray node 0+ runs on this machine"), (["--poll-s", "0"], "> 0")],
)
def test_bad_input(arguments, message):
    with pytest.raises((RuntimeError, ValueError), match=message):
        main(arguments)
