"""The whole chain on the embedded world, from captions to the report.

    python jobs/demo.py --output runs/demo

Captions, synthesis, features, a choice among the images, training, evaluation, report. With
`--images rendered` the world draws what the captions name, in place of Stable Diffusion: the upper
bound. Writes summary.json and report.html into the output folder; the same command again goes on
where it was left. The last line of the output is a JSON summary.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from t2ipal.commands.running import FLAT, finish, parse, remark
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.engine.config import RayConfig
from t2ipal.experiments.config import DemoConfig, demo_synthesis
from t2ipal.places import SharedUri
from t2ipal.selection.config import ChoiceConfig
from t2ipal.store import Store


@dataclass(frozen=True)
class Options(DemoConfig):
    """Runs the main job from captions to report."""

    synthesis: Annotated[SynthesisConfig, FLAT] = field(default_factory=demo_synthesis)
    choice: Annotated[ChoiceConfig, FLAT] = field(default_factory=ChoiceConfig)
    """Which synthetic images to train on; see jobs/choose.py."""
    ray: Annotated[RayConfig, FLAT] = field(default_factory=RayConfig)
    output: SharedUri = "runs/demo"
    """Folder of the run: a local path, or s3://bucket/prefix."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    options = parse(Options, arguments, __doc__)
    words = sys.argv[1:] if arguments is None else arguments
    store = Store(options.output, options.endpoint_url)
    from t2ipal.experiments.demo import run_demo

    command = shlex.join(["python", "jobs/demo.py", *words])
    return finish(run_demo(options, store, [command], remark))
