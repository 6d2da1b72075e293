"""Is it worth choosing among synthetic images, or drawing the poor ones again? Several seeds.

    python jobs/reproduce.py --output runs/reproduction
    python benchmarks/choices.py --reproduction runs/reproduction

Takes the synthetic images of jobs/reproduce.py as a pool: a sample depends on its caption and
number alone, so the pool's further images stand for those that a repair would draw. Each way of
choosing is told to use so many images of each caption; T2I-PAL is trained on what it keeps. The
same command again goes on where it was left. Writes choices.md and choices.json into the folder;
the last line of the output is a JSON summary.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from t2ipal.commands.running import finish, parse, remark, run_job, session
from t2ipal.experiments.choices import ChoicesConfig, markdown, run


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures and prints."""
    options = parse(ChoicesConfig, arguments, __doc__)
    with session(options.in_process, options.ray, options.pool, least_cpus=2):
        measured = run(options, remark)
    print(markdown(measured))
    gains = {
        row["way"]: {name: round(over["mean"], 2) for name, over in row["over"].items()}
        for row in measured["rows"]
    }
    finish({"output": options.reproduction, "gains": gains})
    return measured


if __name__ == "__main__":
    run_job(main)
