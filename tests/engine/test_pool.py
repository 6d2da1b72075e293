"""The pool of workers: the same bytes as without it."""

import pytest
from fake_synthesis import (
    BrokenSynthesizer,
    FailingDevice,
    FakeConfig,
    FakeSynthesizer,
    a_request,
    texts,
)

from benchmarks.chaos.checks import run_contents
from t2ipal.engine import pool
from t2ipal.engine.pool import on_ray
from t2ipal.halting import Halted, halting
from t2ipal.store import Store, committed_shards
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.request import ExecutionConfig


def test_a_share_of_failures_is_a_share():
    with pytest.raises(ValueError, match=r"max_failed_fraction must be in 0..1, got 1.5"):
        ExecutionConfig(max_failed_fraction=1.5)
    with pytest.raises(ValueError, match="min_workers must be > 0, got 0"):
        ExecutionConfig(min_workers=0)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_on_ray_the_same_bytes_as_in_one_process(tmp_path, ray_session, num_workers):
    texts = [f"a dog number {i}" for i in range(11)]
    texts[4] = "a raise dog"
    run = ExecutionConfig(min_workers=num_workers, max_workers=num_workers, max_failed_fraction=0.2)
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    alone = synthesize(here, a_request(texts), run, factory=FakeSynthesizer)
    pooled = synthesize(
        there, a_request(texts), run, workers=on_ray, factory=FakeSynthesizer, progress=True
    )
    assert run_contents(there) == run_contents(here)
    names = ("num_captions", "num_images", "num_failed", "num_shards", "num_shards_skipped")
    for name in names:
        assert getattr(pooled, name) == getattr(alone, name)


def test_a_submitted_job_without_gpus_says_so(tmp_path, ray_session, monkeypatch, caplog):
    """A cluster that grows may have none yet, and would draw everything on its head."""
    message = "No GPU is there yet: 1 worker draws on CPU cores. On a cluster that grows, say what "
    for number, (submitted, gpus) in enumerate([(False, None), (True, 0.0), (True, None)]):
        monkeypatch.setattr(pool, "runs_as_submitted_job", lambda answer=submitted: answer)
        run = ExecutionConfig(max_workers=1, gpus_per_worker=gpus)
        synthesize(
            Store(tmp_path / str(number)),
            a_request(texts(2)),
            run,
            workers=on_ray,
            factory=FakeSynthesizer,
        )
        said = [r.getMessage() for r in caplog.records if r.name == pool.__name__]
        assert [line.startswith(message) for line in said] == [True] * (number == 2)


def test_on_ray_a_halt_leaves_what_is_in_hand_finished(tmp_path, ray_session):
    store, run = Store(tmp_path / "run"), ExecutionConfig(max_workers=1)
    with halting(lambda: True), pytest.raises(Halted):
        synthesize(store, a_request(texts(40)), run, workers=on_ray, factory=FakeSynthesizer)
    # The first, what was in hand when the driver heard of it, and what was begun meanwhile.
    assert 0 < len(committed_shards(store)) < 10
    summary = synthesize(store, a_request(texts(40)), run, factory=FakeSynthesizer)
    assert summary.num_images == 80


def test_on_ray_a_broken_pipeline_is_one_clear_error(tmp_path, ray_session):
    message = "A worker stopped: FileNotFoundError: No weights at fake."
    with pytest.raises(RuntimeError, match=message):
        synthesize(Store(tmp_path), a_request(), workers=on_ray, factory=BrokenSynthesizer)


@pytest.fixture
def faulty(tmp_path):
    """Makes a request whose device fails at a caption, and leaves its processes in `faults`."""
    (tmp_path / "faults").mkdir()

    def make(caption):
        captions = [*texts(5), caption, *texts(5)]
        return a_request(captions, FakeConfig(pipeline=str(tmp_path / "faults")))

    return make


def test_on_ray_a_fault_of_the_device_costs_a_process_and_no_sample(tmp_path, ray_session, faulty):
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    synthesize(here, faulty("a dog, fault once"), factory=FakeSynthesizer)
    run = ExecutionConfig(min_workers=1, max_workers=1)
    summary = synthesize(
        there, faulty("a dog, fault once"), run, workers=on_ray, factory=FailingDevice
    )
    assert summary.num_failed == 0 and run_contents(there) == run_contents(here)
    assert len(list((tmp_path / "faults").iterdir())) == 1


def test_on_ray_a_device_that_keeps_failing_stops_the_run(tmp_path, ray_session, faulty):
    store, run = Store(tmp_path / "run"), ExecutionConfig(min_workers=1, max_workers=1)
    with pytest.raises(RuntimeError, match=r"A worker stopped: RuntimeError: CUDA error: an ill"):
        synthesize(store, faulty("a dog, fault"), run, workers=on_ray, factory=FailingDevice)
    assert len(list((tmp_path / "faults").iterdir())) >= 2
    assert all(marker.num_failed == 0 for marker in committed_shards(store))


def test_in_one_process_a_fault_of_the_device_stops_the_run(tmp_path, faulty):
    store = Store(tmp_path / "run")
    with pytest.raises(RuntimeError, match=r"^CUDA error: an illegal memory access"):
        synthesize(store, faulty("a dog, fault once"), factory=FailingDevice)
    assert [marker.num_failed for marker in committed_shards(store)] == [0]
