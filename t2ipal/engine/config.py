"""How a job uses Ray, as plain values; loads no Ray, so that a command line can be parsed."""

import dataclasses
import re
from dataclasses import dataclass

from t2ipal.config import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_fields,
    require,
)


@dataclass(frozen=True)
class RayConfig:
    """How long a job waits for Ray."""

    max_wait_s: PositiveFloat = 1800.0
    """Seconds to wait for a worker to start, be it for machines of a cluster that grows, before the
    job gives up. After 20 seconds it says for what it waits."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class TrainingGroup:
    """Workers that train together; nothing here changes the objective or its batches."""

    num_workers: str = "1"
    """Ray Train workers that share each batch: a number, or MIN:MAX such as 1:4, which takes what
    is there and starts anew from the last checkpoint as machines come and go; 0 trains in this
    process without Ray."""
    use_gpu: bool = False
    """One GPU for each worker that trains."""
    max_failures: NonNegativeInt = 3
    """How often in a row workers that train may be lost before a further epoch is done."""

    def __post_init__(self) -> None:
        check_fields(self)
        match = re.fullmatch(r"(\d+)(?::(\d+))?", self.num_workers, re.ASCII)
        least, most = self.sizes if match else (0, 0)
        require(
            match is not None and (match[2] is None or 0 < least <= most),
            "num_workers must be a number or MIN:MAX with 1 <= MIN <= MAX, such as 4 or 1:4, got "
            f"{self.num_workers!r}.",
        )

    @property
    def sizes(self) -> tuple[int, int]:
        """Fewest and most workers; 0 and 0: this process."""
        least, _, most = self.num_workers.partition(":")
        return int(least), int(most or least)

    def check_batch(self, num_captions: int) -> None:
        """Refuses workers that would never have a caption.

        Args:
            num_captions: of a batch, over all workers together.
        """
        require(
            self.sizes[1] <= max(num_captions, 1),
            f"num_workers must be at most {num_captions}, the captions of a batch, of which each "
            f"worker takes its part, got {self.num_workers}.",
        )


@dataclass(frozen=True)
class PopulationGroup:
    """Workers of a search, each of which trains a population of trials at once."""

    population: PositiveInt | None = None
    """Trials of a population at most; None: 32, with Optuna an eighth of all, so that what is known
    guides what is tried."""
    max_populations: PositiveInt | None = None
    """Populations side by side; None: as many as the machines that are there now can hold."""
    cpus_per_population: PositiveFloat = 1.0
    """CPU cores of each."""
    gpus_per_population: NonNegativeFloat | None = None
    """GPUs of each, a share of one allowed; None: 1 with a CUDA `device`, else 0."""

    def __post_init__(self) -> None:
        check_fields(self)

    def on(self, device: str) -> "PopulationGroup":
        """With the GPUs that a device needs, where nothing is said of them."""
        if self.gpus_per_population is not None:
            return self
        return dataclasses.replace(self, gpus_per_population=float(device.startswith("cuda")))
