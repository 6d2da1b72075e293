"""What the files beside this one start: a command of the package, from a checkout or installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from t2ipal.commands.main import run_command


def launch(file: str) -> None:
    """Runs the command of the same name as the job's file, and ends the process with its code."""
    run_command(Path(file).stem)
