import pytest

from t2ipal.pools import PoolConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_workers": 0}, "min_workers must be > 0, got 0"),
        ({"max_workers": -1}, "max_workers must be > 0, got -1"),
        ({"min_workers": 3, "max_workers": 2}, "min_workers must be <= max_workers, got 3 > 2"),
        ({"cpus_per_worker": 0}, "cpus_per_worker must be > 0, got 0"),
        ({"gpus_per_worker": -0.5}, "gpus_per_worker must be >= 0, got -0.5"),
    ],
)
def test_bad_pools(changes, message):
    with pytest.raises(ValueError, match=message):
        PoolConfig(**changes)


@pytest.mark.parametrize(
    ("pool", "num_items", "gpus", "sizes"),
    [
        (PoolConfig(), 9, 0, (2, 2)),
        (PoolConfig(), 1, 0, (1, 1)),
        (PoolConfig(cpus_per_worker=2), 9, 0, (1, 1)),
        (PoolConfig(max_workers=6), 9, 0, (2, 6)),
        (PoolConfig(max_workers=1), 9, 0, (1, 1)),
        (PoolConfig(min_workers=4), 9, 0, (4, 4)),
        (PoolConfig(min_workers=4), 3, 0, (3, 3)),
        (PoolConfig(), 9, 1.0, (1, 1)),
        (PoolConfig(max_workers=8), 9, 0.5, (1, 8)),
        (PoolConfig(min_workers=3, max_workers=8), 9, 1.0, (3, 8)),
    ],
)
def test_sizes_on_a_machine_of_two_cores(pool, num_items, gpus, sizes):
    """It is no larger than the work, nor than the machine where nothing was asked for."""
    assert pool.sizes(num_items, 2, 0, gpus) == sizes


def test_what_it_cannot_do_without():
    pool = PoolConfig(min_workers=3, cpus_per_worker=2, gpus_per_worker=0.5)
    assert (pool.least_cpus, pool.least_gpus) == (6, 0.5)
    assert (PoolConfig().least_cpus, PoolConfig().least_gpus) == (1, 0)
