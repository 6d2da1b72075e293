"""A search with Ray Tune over a run's features: residual ratio, sharpness, images per caption, ...

    python jobs/tune.py --run runs/demo --space tune_spaces/paper.yaml

Trials are scored on synthetic images of held-out captions, never on a test set. Tables and Tune's
logs (TensorBoard, CSV, JSON) lie under `run`/tune. The last line of the output is a JSON summary.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Annotated, Any

from t2ipal.commands.running import FLAT, finish, parse, session
from t2ipal.config import override, parse_changes, require, to_dict
from t2ipal.engine.config import RayConfig
from t2ipal.engine.workers import extract
from t2ipal.features.config import BackboneConfig, FeatureAccess
from t2ipal.places import LocalPath, SharedUri
from t2ipal.pools import PoolConfig
from t2ipal.store import Store, read_manifest


@dataclass(frozen=True)
class Options:
    """Searches the settings of one method on a run's captions and images."""

    run: SharedUri = "runs/demo"
    """Folder that jobs/synthesize.py (or jobs/demo.py) filled."""
    space: LocalPath = "tune_spaces/paper.yaml"
    """What to vary and how: a YAML file."""
    output: SharedUri | None = None
    """Folder or s3://bucket/prefix for the trials; None: `run`/tune."""
    method: str = "t2ipal"
    """Recipe that the search starts from."""
    data_set: str = "pictovoc"
    """Whose schedule to take, by a test set's name: pictovoc, voc2007, coco2014, nuswide, ..."""
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
    access: Annotated[FeatureAccess, FLAT] = field(default_factory=FeatureAccess)
    pool: Annotated[PoolConfig, FLAT] = field(default_factory=PoolConfig)
    ray: Annotated[RayConfig, FLAT] = field(default_factory=RayConfig)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    options = parse(Options, arguments, __doc__)
    from t2ipal.evaluation.test_sets import schedule_of
    from t2ipal.features.backbone import load_text_tower
    from t2ipal.features.reading import read_training_features
    from t2ipal.search.setting import Setting
    from t2ipal.search.space_file import load_space
    from t2ipal.search.trials import keep_search
    from t2ipal.training.recipes import recipe

    cpus, gpus = options.cpus_per_trial, options.gpus_per_trial
    require(cpus > 0, f"cpus_per_trial must be > 0, got {cpus}.")
    require(gpus >= 0, f"gpus_per_trial must be >= 0, got {gpus}.")
    store = Store(options.run, options.endpoint_url)
    output = store if options.output is None else Store(options.output, options.endpoint_url)
    settings, place = read_manifest(store).settings, "" if options.output else "tune"
    names = settings.class_names, settings.prompt_names
    start = recipe(options.method, schedule_of(options.data_set), *names)
    start = override(start, parse_changes(options.set))
    setting = Setting(start.method, start.training)
    space = load_space(options.space, setting, options.num_samples)
    with session(False, options.ray, options.pool, math.ceil(cpus), gpus):
        from t2ipal.engine.search import run_search

        folder = extract(store, options.backbone, False, options.pool)
        searched = {"search": to_dict(space), "recipe": to_dict(start), "features": folder}
        keep_search(output, place, searched)
        result = run_search(
            space, start, read_training_features(store, folder, access=options.access),
            partial(load_text_tower, options.backbone), output, place,
            cpus_per_trial=cpus, gpus_per_trial=gpus, verbose=1,
        )  # fmt: skip
    return finish(
        {
            "output": f"{output.uri}/{place}".rstrip("/"),
            "num_trials": len(result.trials),
            "num_failed": sum(trial.status == "failed" for trial in result.trials),
            "best": asdict(result.best()),
        }
    )
