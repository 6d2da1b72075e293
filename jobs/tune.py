"""A search with Ray Tune over a run's features: residual ratio, sharpness, images per caption, ...

    python jobs/tune.py --run runs/demo --space tune_spaces/paper.yaml

Trials are scored on synthetic images of held-out captions, never on a test set. Tables and Tune's
logs (TensorBoard, CSV, JSON) lie under `run`/tune. The last line of the output is a JSON summary.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro

from jobs._job import run_job
from jobs.train import parse_changes
from t2ipal.config import differences, override, require, to_dict
from t2ipal.engine.extraction import extract_run
from t2ipal.engine.search import run_search
from t2ipal.engine.session import connect
from t2ipal.extraction import read_training_features
from t2ipal.features import BackboneConfig, load_backbone
from t2ipal.recipes import recipe
from t2ipal.search import load_space
from t2ipal.store import Store, read_manifest

FLAT = tyro.conf.arg(name="")


@dataclass(frozen=True)
class Options:
    """Searches the settings of one method on a run's captions and images."""

    run: str = "runs/demo"
    """Folder that jobs/synthesize.py (or jobs/demo.py) filled."""
    space: str = "tune_spaces/paper.yaml"
    """What to vary and how: a YAML file."""
    output: str | None = None
    """Folder for the trials; None: `run`/tune."""
    method: str = "t2ipal"
    """Recipe that the search starts from."""
    data_set: str = "pictovoc"
    """Whose schedule to take: pictovoc, voc2007, coco2014 or nuswide."""
    set: tuple[str, ...] = ()
    """Changes that hold for every trial, as name=value with dotted names."""
    num_samples: int | None = None
    """Trials in place of the space's own number."""
    cpus_per_trial: float = 1
    """CPU cores of one trial."""
    gpus_per_trial: float = 0
    """GPUs of one trial, a share of one allowed."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)


def keep_settings(output: Path, settings: dict[str, Any]) -> None:
    """Writes what is searched beside the trials, unless those there are of another search.

    Raises:
        ValueError: they are; every difference is named.
    """
    path = output / "settings.json"
    if path.is_file() and (output / "trials.json").is_file():
        changed = differences(settings, json.loads(path.read_text()))
        require(
            not changed,
            f"{output} holds another search ({'; '.join(changed)}). Use another output folder or "
            "remove it.",
        )
    output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=2) + "\n")


def run(options: Options) -> dict[str, Any]:
    """Checks the space, extracts what features are missing, searches, and returns the summary."""
    cpus, gpus = options.cpus_per_trial, options.gpus_per_trial
    require(cpus > 0, f"cpus_per_trial must be > 0, got {cpus}.")
    require(gpus >= 0, f"gpus_per_trial must be >= 0, got {gpus}.")
    store = Store(options.run, options.endpoint_url)
    settings = read_manifest(store)["settings"]
    names = tuple(settings["class_names"]), tuple(settings["prompt_names"])
    start = override(recipe(options.method, options.data_set, *names), parse_changes(options.set))
    space = load_space(options.space, start)
    if options.num_samples is not None:
        space = replace(space, num_samples=options.num_samples)
    require(
        options.output is not None or "://" not in options.run,
        "output must be a local folder where the run is in a bucket: give --output.",
    )
    output = Path(options.output or f"{options.run}/tune")
    with connect(least_cpus=math.ceil(cpus), least_gpus=gpus):
        folder = extract_run(store, options.backbone, progress=True)
        searched = {"search": to_dict(space), "recipe": to_dict(start), "features": folder}
        keep_settings(output, searched)
        data = read_training_features(store, folder)
        result = run_search(
            space, start, data, partial(load_backbone, options.backbone), output,
            cpus_per_trial=cpus, gpus_per_trial=gpus, verbose=1,
        )  # fmt: skip
    return {
        "output": str(output),
        "num_trials": len(result.trials),
        "num_failed": sum(trial.status == "failed" for trial in result.trials),
        "best": asdict(result.best()),
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    summary = run(tyro.cli(Options, args=arguments, description=__doc__))
    print(json.dumps(summary))
    return summary


if __name__ == "__main__":
    run_job(main)
