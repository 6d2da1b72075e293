"""What the demo is asked for, as plain values."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from t2ipal.config import NonNegativeInt, PositiveInt, check_fields
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.engine.config import RayConfig
from t2ipal.features.config import BackboneConfig
from t2ipal.places import LocalPath, NameOrPath, Uri
from t2ipal.pools import PoolConfig
from t2ipal.selection.config import ChoiceConfig


def demo_synthesis() -> SynthesisConfig:
    """The embedded Stable Diffusion with few steps: a minute for the demo's images."""
    return SynthesisConfig(
        images_per_caption=2,
        guidance_scale=2.0,
        guidance_until=0.6,
        num_inference_steps=14,
        batch_size=32,
    )


@dataclass(frozen=True)
class DemoConfig:
    """What the whole chain makes of the embedded world's captions."""

    num_captions: PositiveInt = 1000
    """Captions used, drawn from those of the world's that name a class."""
    images: Literal["synthetic", "rendered"] = "synthetic"
    """Images by the embedded Stable Diffusion, or drawn by the world itself (the upper bound)."""
    methods: tuple[str, ...] = ("zsclip", "tai_dpt", "t2ipal")
    """Recipes to train and compare."""
    seeds: tuple[NonNegativeInt, ...] = (0, 1, 2)
    """Training seeds."""
    num_workers: NonNegativeInt = 1
    """Ray Train workers; 0 trains in this process."""
    set: tuple[str, ...] = ()
    """Changes to every recipe, as name=value with dotted names, e.g. method.sharpness=3.5."""
    synthesis: SynthesisConfig = field(default_factory=demo_synthesis)
    choice: ChoiceConfig = field(default_factory=ChoiceConfig)
    """Which synthetic images to train on; see jobs/choose.py."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        check_fields(self)


def reproduction_synthesis() -> SynthesisConfig:
    """The demo's, with more images."""
    return dataclasses.replace(demo_synthesis(), images_per_caption=10)


@dataclass(frozen=True)
class ReproductionConfig:
    """Measures the paper's tables and figures."""

    items: tuple[str, ...] = ("all",)
    """table1 to table14, fig3 to fig10, or all of these; plus, plus_parts and plus_settings: this
    project's own method beside them; rendered and shown: what perfect images would teach, and what
    the images show."""
    on: Literal["pictovoc", "voc2007", "coco2014", "coco2017", "nuswide"] = "pictovoc"
    """Data set. The embedded world brings everything along, and makes its images where they are
    missing; real ones need --test-root, and --sets where a system learns from captions."""
    seeds: PositiveInt = 5
    """Seeds of each system: its start, the order of its data, and which images come first."""
    quick: bool = False
    """A tenth of the work, to see whether all goes well: fewer captions, images, points, seeds."""
    test_root: Uri | None = None
    """Folder of the real data set, with training and test images: a local path, or s3://."""
    sets: tuple[str, ...] = ()
    """Runs of jobs/synthesize.py with the data set's classes, as NAME=RUN: synthetic (the main
    one), written (captions of jobs/write_captions.py), original (real images of the captions),
    fewer-steps, guidance-4 and so on. What has no run is `data missing` in the tables."""
    episodes: LocalPath | None = None
    """LaSO's file of episodes of 16 novel classes, for coco2014."""
    num_captions: PositiveInt = 1000
    """Of the embedded world."""
    num_labelled: PositiveInt = 1000
    """Labelled images of the embedded world, for systems that learn from such."""
    num_views: PositiveInt = 4
    """Of each labelled image: itself, and augmented ones, the same in every epoch."""
    in_process: bool = False
    """Train in this process, without Ray."""
    synthesis: SynthesisConfig = field(default_factory=reproduction_synthesis)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    other: NameOrPath | None = None
    """The other encoder of table 12: open_clip's name, or a folder; with the tag of the first.
    None: pictovoc_deep on the embedded world, none on real data sets."""
    pool: PoolConfig = field(default_factory=PoolConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        check_fields(self)
