"""How a job uses Ray, as plain values; loads no Ray, so that a command line can be parsed."""

from dataclasses import dataclass

from t2ipal.config import PositiveFloat, check_fields


@dataclass(frozen=True)
class RayConfig:
    """How long a job waits for Ray."""

    max_wait_s: PositiveFloat = 1800.0
    """Seconds to wait for a worker to start, be it for machines of a cluster that grows, before the
    job gives up. After 20 seconds it says for what it waits."""

    def __post_init__(self) -> None:
        check_fields(self)
