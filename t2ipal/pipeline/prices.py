"""A table of what machines cost and how fast they draw; the package's own is prices.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from t2ipal.config import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_fields,
    from_dict,
    one_of,
    read_yaml,
    require,
)
from t2ipal.diffusion.config import SynthesisConfig

SHIPPED = Path(__file__).with_name("prices.yaml")
LOCAL, UNTYPED = "local", "untyped"
"""This machine, where it has no cluster; and a cluster's machine that no autoscaler started."""


@dataclass(frozen=True)
class Machine:
    """A node type."""

    dollars_per_hour: NonNegativeFloat | None = None
    """Of the whole machine; None: not known."""
    source: str = ""
    gpus: NonNegativeInt = 0
    teraflops: PositiveFloat | None = None
    """That one of its GPUs does in practice; None: not known."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Rate:
    """Images an hour of one GPU, or of a whole machine without one."""

    machine: str
    model: str
    images_per_hour: PositiveFloat
    num_inference_steps: PositiveInt | None = None
    """With which it was measured; None: it holds for any number."""
    source: str = ""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Model:
    """What is known of a text-to-image model without loading it."""

    image_size_px: PositiveInt
    unet: PositiveFloat | None = None
    """Operations of one pass, in 10^12."""
    decoder: NonNegativeFloat = 0.0
    """Operations of decoding an image, in 10^12."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class PriceTable:
    """Prices of machines, rates of models."""

    machines: Mapping[str, Machine]
    rates: tuple[Rate, ...] = ()
    models: Mapping[str, Model] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        for rate in self.rates:
            one_of("machine of a rate", rate.machine, self.machines)

    def price(self, machine: str) -> float | None:
        """Dollars of an hour of a node type; None: not known."""
        known = self.machines.get(machine)
        return None if known is None else known.dollars_per_hour

    def images_per_hour(self, machine: str, config: SynthesisConfig) -> tuple[float, str] | None:
        """What one GPU of a node type makes, or a whole machine without one, and who says so."""
        steps = config.num_inference_steps
        for rate in self.rates:
            if (rate.machine, rate.model) == (machine, config.pipeline):
                scale = (rate.num_inference_steps or steps) / steps
                return rate.images_per_hour * scale, rate.source or "the price table"
        known, model = self.machines[machine], self.models.get(config.pipeline)
        if known.teraflops is None or model is None or model.unet is None:
            return None
        size_px = config.image_size_px or model.image_size_px
        area = (size_px / model.image_size_px) ** 2
        work = area * (model.unet * num_passes(config) + model.decoder)
        return 3600 * known.teraflops / work, "an estimate from operations, not measured"


def num_passes(config: SynthesisConfig) -> float:
    """Passes of the UNet for an image: one a step, and one more for each guided step."""
    guided = config.guidance_until - config.guidance_from if config.guidance_scale > 1 else 0.0
    return config.num_inference_steps * (1 + guided)


def read_prices(path: Path) -> PriceTable:
    """The table in a YAML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such table.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No price table at {path}. Copy {SHIPPED}, and change it.")
    content = read_yaml(path)
    require(isinstance(content, Mapping), f"{path} must hold machines:, got {content!r:.80}.")
    try:
        return from_dict(PriceTable, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
