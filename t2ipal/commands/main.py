"""The one entry point: `t2ipal JOB ...`, and `python jobs/JOB.py ...` which is the same.

Loads a command's own module alone, so that its help answers at once.
"""

import importlib
import sys
from collections.abc import Sequence

from t2ipal.commands.stopping import GO_ON, ended_by_signals
from t2ipal.commands.streams import open_missing_streams, steady_streams

COMMANDS = {
    "reproduce": "the paper's tables and figures, measured anew",
    "demo": "the whole chain on the embedded world, from captions to a report",
    "write_captions": "captions for given classes, by a grammar or a language model",
    "synthesize": "captions in, a stored set of synthetic images out",
    "status": "how far a synthesis is, from its store alone",
    "choose": "measure every image with CLIP, and choose which to train on",
    "repair": "draw again what did not come out",
    "train": "learn prompts and adapters on a run's captions and images",
    "evaluate": "average precision of trained recognizers on a test set",
    "predict": "labels and scores of your own photographs",
    "tune": "search settings with Ray Tune",
    "dashboard": "a live page about a run and its searches",
    "pipeline": "all stages from captions to report as one job, with a plan and a budget",
    "report": "one self-contained HTML page about a run",
    "doctor": "why does nothing happen? checks of machine, cluster, bucket and quotas",
    "watch_spot": "drain this machine's Ray node when its spot machine is taken back",
    "pretrain_pictovoc": "train the embedded world's models from scratch",
}
"""Job -> what it does, in the order of their use."""
BEGIN_ANEW = ("evaluate", "predict", "report")
"""Jobs that keep nothing before their end."""


def run_command(name: str, arguments: Sequence[str] | None = None) -> None:
    """Runs one job and ends the process where it fails; `arguments` None: those of the process."""
    open_missing_streams()
    line = f"{GO_ON} ({name} begins anew)" if name in BEGIN_ANEW else GO_ON
    with ended_by_signals(line):
        from t2ipal.commands.running import run_job  # loads tyro

        module = importlib.import_module(f"t2ipal.commands.{name}")

        def work() -> None:
            with steady_streams():
                module.main(arguments)

        run_job(work)


def main() -> None:
    """`t2ipal JOB ...`."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        open_missing_streams()
        with steady_streams():
            print("usage: t2ipal JOB [OPTIONS]; t2ipal JOB --help tells a job's options.\n")
            for name, about in COMMANDS.items():
                print(f"  {name:<18} {about}")
        return
    name = words[0].replace("-", "_")
    if name not in COMMANDS:
        from t2ipal.config import unknown

        print(f"error: {unknown('job', words[0], COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"t2ipal {name}", *words[1:]]
    run_command(name, words[1:])
