"""What the files beside this one start: a command of the package, from a checkout or installed."""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from t2ipal.commands.main import run_command


def launch(name: str, file: str) -> Callable[..., Any]:
    """The `main` of the command that a file is named after; runs it where the file is started.

    Args:
        name: the file's `__name__`.
        file: its path.
    """
    command = Path(file).stem
    if name == "__main__":
        run_command(command)

    def main(arguments: Sequence[str] | None = None) -> Any:
        return importlib.import_module(f"t2ipal.commands.{command}").main(arguments)

    return main
