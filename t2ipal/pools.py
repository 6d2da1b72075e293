"""How many workers a job starts and how large each is, as plain values; starts none."""

from dataclasses import dataclass

from t2ipal.config import NonNegativeFloat, PositiveInt, check_fields, require


@dataclass(frozen=True)
class PoolConfig:
    """Workers of a pool that does one item after another; nothing here changes a result."""

    min_workers: PositiveInt | None = None
    """Workers of the pool (for images, features or predictions) to start with; None: as many as the
    machines that are there now can hold."""
    max_workers: PositiveInt | None = None
    """Workers of the pool at most, on a cluster that grows; None: the same as min_workers."""
    cpus_per_worker: PositiveInt = 1
    """CPU cores, and threads, of each worker."""
    gpus_per_worker: NonNegativeFloat | None = None
    """GPUs of each worker of the pool, a share of one allowed; None: 1 where there are GPUs, else
    0."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.min_workers is not None and self.max_workers is not None:
            require(
                self.min_workers <= self.max_workers,
                f"min_workers must be <= max_workers, got {self.min_workers} > {self.max_workers}.",
            )

    @property
    def least_cpus(self) -> int:
        """Cores without which not all of its first workers start."""
        return (self.min_workers or 1) * self.cpus_per_worker

    @property
    def least_gpus(self) -> float:
        """GPUs without which none of its workers starts."""
        return self.gpus_per_worker or 0.0

    def sizes(self, num_items: int, cpus: float, gpus: float, each_gpus: float) -> tuple[int, int]:
        """Smallest and largest number of workers; never more than there are items.

        Args:
            num_items: to be done.
            cpus: of all machines that are there.
            gpus: of these.
            each_gpus: of one worker.
        """
        fitting = num_fitting(cpus, gpus, self.cpus_per_worker, each_gpus)
        smallest = self.min_workers or max(1, min(fitting, self.max_workers or fitting))
        largest = max(smallest, self.max_workers or 0)
        return min(smallest, num_items), min(largest, num_items)


def num_fitting(cpus: float, gpus: float, each_cpus: float, each_gpus: float) -> int:
    """Workers of a size that machines can hold.

    Args:
        cpus: of all machines together.
        gpus: of these.
        each_cpus: of one worker, above 0.
        each_gpus: of one worker; 0: they need none.
    """
    fitting = int(cpus // each_cpus)
    return min(fitting, int(gpus // each_gpus)) if each_gpus > 0 else fitting
