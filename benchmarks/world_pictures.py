"""The pictures of docs/world.md: what the embedded world looks like and what its models make of it.

    python benchmarks/world_pictures.py

Draws with Pillow alone. The last line of the output is a JSON summary with each file's size in
bytes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from t2ipal.commands.running import finish, parse, run_job
from t2ipal.experiments.world_pictures import PicturesConfig, draw_pictures


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Draws and prints."""
    options = parse(PicturesConfig, arguments, __doc__)
    return finish({"output": options.output, "bytes": draw_pictures(options)})


if __name__ == "__main__":
    run_job(main)
