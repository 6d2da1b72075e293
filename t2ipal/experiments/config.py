"""What the demo is asked for, as plain values."""

from dataclasses import dataclass, field
from typing import Literal

from t2ipal.config import NonNegativeInt, PositiveInt, check_fields
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.engine.config import RayConfig
from t2ipal.features.config import BackboneConfig
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
