"""Items on a pool of actors: none lost, none twice, whatever becomes of an actor."""

import os
from functools import partial

import pytest

from t2ipal.engine import actors
from t2ipal.engine.actors import each_on_actors, pool_sizes
from t2ipal.pools import PoolConfig


def load_and_die_once(folder):
    """Ends its process in the midst of an item, as where its machine goes; and its GPU fails."""

    def work(item):
        if item == 3 and not (folder / "died").exists():
            (folder / "died").touch()
            os._exit(1)
        if item == 7 and not (folder / "fault").exists():
            (folder / "fault").touch()
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        (folder / str(item)).touch()
        return [item, item * item]

    return work


def test_a_lost_actor_loses_no_item(ray_session, tmp_path):
    load = partial(load_and_die_once, tmp_path)
    pool = PoolConfig(min_workers=1, max_workers=2)
    results = list(each_on_actors(load, range(12), stage="test", device="cpu", pool=pool))
    assert results == [[item, item * item] for item in range(12)]
    assert len(list(tmp_path.iterdir())) == 14


def test_a_worker_on_cuda_needs_a_gpu_where_one_can_come(ray_session, monkeypatch):
    """On a cluster that grows there is none before it is asked for."""
    for submitted, device, gpus in [
        (False, "cuda", 0.0), (True, "cuda:0", 1.0), (True, "cpu", 0.0), (True, "mps", 0.0),
    ]:  # fmt: skip
        monkeypatch.setattr(actors, "runs_as_submitted_job", lambda answer=submitted: answer)
        assert actors._gpus_of_each(PoolConfig(), device) == gpus
        assert actors._gpus_of_each(PoolConfig(gpus_per_worker=0.5), device) == 0.5


@pytest.mark.parametrize(("pool", "sizes"), [(PoolConfig(), (2, 2)), (PoolConfig(3, 5), (3, 5))])
def test_a_pool_on_the_cluster_as_it_is(ray_session, pool, sizes):
    assert pool_sizes(pool, 0, 9) == sizes
