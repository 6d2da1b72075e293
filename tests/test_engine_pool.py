"""The pool of workers: its size, and the same bytes as without it."""

import pytest
from fake_synthesis import BrokenSynthesizer, FakeSynthesizer, a_request

from benchmarks.chaos_checks import run_contents
from t2ipal.engine.pool import RunConfig, _pool_size
from t2ipal.engine.synthesis import synthesize, synthesize_locally
from t2ipal.store import Store


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_workers": 0}, "min_workers must be > 0, got 0"),
        ({"max_workers": -1}, "max_workers must be > 0, got -1"),
        ({"min_workers": 3, "max_workers": 2}, "min_workers must be <= max_workers, got 3 > 2"),
        ({"cpus_per_worker": 0}, "cpus_per_worker must be > 0, got 0"),
        ({"gpus_per_worker": -0.5}, "gpus_per_worker must be >= 0, got -0.5"),
        ({"max_failed_fraction": 1.5}, r"max_failed_fraction must be in 0..1, got 1.5"),
    ],
)
def test_run_config_checks(changes, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**changes)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_on_ray_the_same_bytes_as_in_one_process(tmp_path, ray_session, num_workers):
    texts = [f"a dog number {i}" for i in range(11)]
    texts[4] = "a raise dog"
    run = RunConfig(min_workers=num_workers, max_workers=num_workers, max_failed_fraction=0.2)
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    alone = synthesize_locally(here, a_request(texts), run, factory=FakeSynthesizer)
    pooled = synthesize(there, a_request(texts), run, factory=FakeSynthesizer, progress=True)
    assert run_contents(there) == run_contents(here)
    names = ("num_captions", "num_images", "num_failed", "num_shards", "num_shards_skipped")
    for name in names:
        assert getattr(pooled, name) == getattr(alone, name)


def test_on_ray_a_broken_pipeline_is_one_clear_error(tmp_path, ray_session):
    message = "A worker stopped: FileNotFoundError: No weights at fake."
    with pytest.raises(RuntimeError, match=message):
        synthesize(Store(tmp_path), a_request(), factory=BrokenSynthesizer)


def test_pool_is_no_larger_than_the_work_or_the_machine(ray_session):
    assert _pool_size(RunConfig(), 0, num_plans=9) == (2, 2)
    assert _pool_size(RunConfig(), 0, num_plans=1) == (1, 1)
    assert _pool_size(RunConfig(cpus_per_worker=2), 0, num_plans=9) == (1, 1)
    assert _pool_size(RunConfig(max_workers=6), 0, num_plans=9) == (2, 6)
    assert _pool_size(RunConfig(min_workers=4), 0, num_plans=9) == (4, 4)
    assert _pool_size(RunConfig(), 1.0, num_plans=9) == (1, 1)
