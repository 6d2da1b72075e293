"""The whole chain on the embedded world, from captions to the report.

    python jobs/demo.py --output runs/demo

Captions, synthesis, features, a choice among the images, training, evaluation, report. With
`--images rendered` the world draws what the captions name, in place of Stable Diffusion: the upper
bound. Writes summary.json and report.html into the output folder; the same command again goes on
where it was left. The last line of the output is a JSON summary.
"""

import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro

from jobs import choose, evaluate, report, train
from jobs._job import run_job
from t2ipal.captions import Caption, FilterResult, Vocabulary, filter_captions, load_vocabulary
from t2ipal.config import require, to_dict
from t2ipal.engine.session import connect
from t2ipal.engine.synthesis import RunConfig, SynthesisRequest, synthesize
from t2ipal.features import BackboneConfig, load_backbone
from t2ipal.pictovoc.captions import world_captions
from t2ipal.pictovoc.rendering import RenderingSynthesizer
from t2ipal.quality import ChoiceConfig, QualityConfig
from t2ipal.store import Store
from t2ipal.synthesis import SynthesisConfig, with_class_prompts
from t2ipal.test_sets import test_set_features

FLAT = tyro.conf.arg(name="")
CHOSEN = "chosen"
"""Name of the choice among the synthetic images."""


@dataclass(frozen=True)
class Options:
    """Runs the main job from captions to report."""

    output: str = "runs/demo"
    """Folder of the run."""
    num_captions: int = 1000
    """Captions used, drawn from those of the world's that name a class."""
    images: Literal["synthetic", "rendered"] = "synthetic"
    """Images by the embedded Stable Diffusion, or drawn by the world itself (the upper bound)."""
    methods: tuple[str, ...] = ("zsclip", "tai_dpt", "t2ipal")
    """Recipes to train and compare."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    num_workers: int = 1
    """Ray Train workers."""
    set: tuple[str, ...] = ()
    """Changes to every recipe, as name=value with dotted names, e.g. method.sharpness=3.5."""
    synthesis: Annotated[SynthesisConfig, FLAT] = field(
        default_factory=lambda: SynthesisConfig(
            images_per_caption=2,
            guidance_scale=2.0,
            guidance_until=0.6,
            num_inference_steps=14,
            batch_size=32,
        )
    )
    choice: Annotated[ChoiceConfig, FLAT] = field(default_factory=ChoiceConfig)
    """Which synthetic images to train on; see jobs/choose.py."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)


def choose_captions(num_captions: int) -> tuple[Vocabulary, FilterResult]:
    """The first captions of the world's validation scenes that name a class of its vocabulary."""
    vocabulary = load_vocabulary("voc2007")
    # About 1.2 for each one wanted, since some name no class.
    rows = world_captions("validation", num_captions + num_captions // 5 + 20)
    return vocabulary, filter_captions([Caption(*row) for row in rows], vocabulary, num_captions)


def run(options: Options, command: str = "python jobs/demo.py") -> dict[str, Any]:
    """Runs every stage; writes the summary, and returns it with the judge's share."""
    require(options.num_captions > 0, f"num_captions must be > 0, got {options.num_captions}.")
    require(options.num_workers >= 0, f"num_workers must be >= 0, got {options.num_workers}.")
    output, seconds = Path(options.output), {}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        print(f"== {stage}", file=sys.stderr, flush=True)
        started = time.monotonic()
        yield
        seconds[stage] = round(time.monotonic() - started, 1)

    with timed("captions"):
        vocabulary, filtered = choose_captions(options.num_captions)
    config, factory = with_class_prompts(options.synthesis, vocabulary.prompt_names), None
    if options.images == "rendered":
        config, factory = dataclasses.replace(config, pipeline="rendered"), RenderingSynthesizer
    request = SynthesisRequest(config, vocabulary, filtered)
    training = train.Options(
        run=options.output,
        images=CHOSEN if options.images == "synthetic" else None,
        methods=options.methods,
        seeds=options.seeds,
        num_workers=options.num_workers,
        set=options.set,
        backbone=options.backbone,
    )
    # What later stages would refuse is refused before minutes of synthesis.
    train.plan_runs(training, request.settings())
    backbone = load_backbone(options.backbone)
    store = Store(options.output)
    with connect(least_cpus=2):
        with timed("synthesis"):
            made = synthesize(store, request, RunConfig(), factory=factory, progress=True)
        if options.images == "synthetic":
            with timed("features_and_choice"):
                quality, folder = choose.measure(store, QualityConfig(), options.backbone, None)
                facts = {"features": folder, "quality": to_dict(QualityConfig())}
                choose.save(store, CHOSEN, quality, options.choice, facts)
        with timed("features_and_training"):
            train.run(training)
    with timed("evaluation"):
        test = test_set_features("pictovoc", None, backbone)
        evaluated = evaluate.run(
            evaluate.Options(run=options.output, backbone=options.backbone), test
        )
    with timed("report"):
        stored = report.read_stored_images(store)
        drawn = report.run(
            report.Options(run=options.output, backbone=options.backbone),
            test=test, stored=stored, seconds=seconds, commands=[command],
        )  # fmt: skip
    keys = ("mean", "std", "seeds")
    summary = {
        "mAP": {name: {k: m[k] for k in keys} for name, m in evaluated["methods"].items()},
        "num_captions": made.num_captions,
        "num_images": made.num_images,
        "num_failed": made.num_failed,
        "seconds": seconds,
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return {**summary, "judge_share": stored.share, "report": drawn["report"]}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    words = sys.argv[1:] if arguments is None else arguments
    summary = run(options, shlex.join(["python", "jobs/demo.py", *words]))
    print(json.dumps(summary))
    return summary


if __name__ == "__main__":
    run_job(main)
