"""Starts a script of benchmarks/chaos in a process of its own, in a short form."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

CHAOS = Path(__file__).parents[1] / "benchmarks" / "chaos"


def run_chaos(script: str, **options: Any) -> tuple[dict[str, Any], str]:
    """What the script's last line says, and its output; it must exit with 0."""
    flags = [[f"--{name.replace('_', '-')}", str(value)] for name, value in options.items()]
    process = subprocess.Popen(
        [sys.executable, str(CHAOS / script), *itertools.chain(*flags)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_worker_niceness": "0"},
    )
    try:
        output, errors = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # so that it ends what it started
            process.wait(30)
    assert process.returncode == 0, output + errors
    return json.loads(output.splitlines()[-1]), output
