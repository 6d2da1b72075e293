"""Which samples a shard holds, and how a worker keeps its device busy."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_synthesis import FakeSynthesizer, a_request, caption, texts

from benchmarks.chaos.checks import run_contents
from t2ipal.store import Section, Store, commit_shard, read_marker
from t2ipal.store.images import encode_image
from t2ipal.synthesis.growth import plan_run, record_request
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.plans import ShardPlan, plan_shards
from t2ipal.synthesis.worker import Meter, ShardWorker


def plans_of(captions, values, images_per_shard, first_k=0):
    section = Section(0, 9, 0, len(captions), first_k, values["images_per_caption"], "")
    return plan_shards(captions, section, values, images_per_shard)


def test_plans_cover_every_sample_once_in_order():
    captions = [caption(str(i), f"caption {i}") for i in range(5)]
    plans = plans_of(captions, {"images_per_caption": 3, "seed": 1}, images_per_shard=7)
    assert [len(plan.samples) for plan in plans] == [6, 6, 3]
    assert [plan.shard for plan in plans] == ["00000", "00001", "00002"]
    samples = [(sample.caption_id, sample.k) for plan in plans for sample in plan.samples]
    assert samples == [(str(i), k) for i in range(5) for k in range(3)]
    later = plans_of(captions, {"images_per_caption": 3}, images_per_shard=2, first_k=3)
    assert [len(plan.samples) for plan in later] == [3] * 5  # a caption is never torn apart
    assert [sample.k for sample in later[0].samples] == [3, 4, 5]


def test_a_plan_survives_its_text_form():
    plan = plans_of(
        [caption("é", "a “dog”", (0, 2))], {"images_per_caption": 2}, images_per_shard=4
    )[0]
    assert ShardPlan.from_json(plan.to_json()) == plan
    retry = plan.again("00000-retry1", [1], attempt=1)
    assert ShardPlan.from_json(retry.to_json()) == retry
    assert retry.samples == plan.samples[1:]
    first = dataclasses.replace(retry, attempt=0)
    assert "attempt" not in first.identity()
    assert retry.identity() == {**first.identity(), "attempt": 1}


def test_a_meter_is_told_of_each_step_and_of_what_was_made(tmp_path):
    class Kept(Meter):
        steps, made = [], []

        def spent(self, step, seconds):
            self.steps.append(step)

        def committed(self, marker, rows):
            self.made.append((marker.num_rows, len(rows)))

    store, request = Store(tmp_path), a_request(texts(4))
    synthesize(Store(tmp_path / "first"), request, factory=FakeSynthesizer)
    (plan,) = plan_run(Store(tmp_path / "first"), request.settings())
    then = lambda store, device: lambda shard, images: None  # noqa: E731
    worker = ShardWorker(store, request.config, FakeSynthesizer, after_commit=then, meter=Kept())
    marker = worker(plan)
    assert {*marker.other_seconds} == {"encode", "store"}
    assert Kept.made == [(8, 8)] and Kept.steps[-2:] == ["store", "features"]
    assert sorted(Kept.steps[:-2]) == ["draw"] * 3 + ["encode"] * 3
    assert worker(plan) == marker and len(Kept.made) == 1  # nothing is made again


def test_a_shard_that_someone_else_made_is_not_made_again(tmp_path):
    store, request = Store(tmp_path), a_request(texts(4))
    synthesize(store, request, factory=FakeSynthesizer)
    (plan,) = plan_run(store, request.settings())
    contents, marker = run_contents(store), read_marker(store, "00000", plan.identity())
    worker = ShardWorker(store, request.config, lambda config: None)  # it cannot make anything
    assert worker(plan) == marker and run_contents(store) == contents
    other = dataclasses.replace(plan, settings_fingerprint="others")
    with pytest.raises(ValueError, match=r"Shard 00000 in .* was made from another plan"):
        worker(other)


def test_plan_identity_follows_content_and_settings():
    captions = [caption("1", "one"), caption("2", "two")]
    values = {"images_per_caption": 2, "seed": 1}

    def identity(captions, values):
        return plans_of(captions, values, 2)[0].identity()

    same = identity(captions, values)
    assert identity(captions[:1], values) == same  # a larger set leaves old shards alone
    assert identity(captions, {**values, "seed": 2}) != same
    assert identity([caption("1", "ONE"), captions[1]], values) != same


def test_the_device_works_on_while_a_shard_is_stored(tmp_path, monkeypatch):
    """The first shard's upload does not end before the second one's images are made."""
    busy, uploading, made = threading.Lock(), threading.Event(), threading.Event()

    class Watched(FakeSynthesizer):
        def __call__(self, batch):
            assert busy.acquire(blocking=False), "two micro-batches on one device"
            output = super().__call__(batch)
            busy.release()
            return output

    def slow_commit(store, shard, *args):
        if shard == "00000":
            uploading.set()
            assert made.wait(30)
        else:
            made.set()
        return commit_shard(store, shard, *args)

    monkeypatch.setattr("t2ipal.synthesis.worker.commit_shard", slow_commit)
    request = a_request(texts(8), images_per_shard=8)
    store = Store(tmp_path)
    record_request(store, request.captions.kept, [], 2, 8)
    first, second = plan_run(store, request.settings())
    worker = ShardWorker(store, request.config, Watched)
    with ThreadPoolExecutor(1) as pool:
        marker = pool.submit(worker, first)
        assert uploading.wait(30)
        assert worker(second).shard == "00001"
        assert marker.result().shard == "00000"


def test_the_device_works_on_while_images_are_encoded(tmp_path, monkeypatch):
    """The first micro-batch is encoded no sooner than the second one is made."""
    second, made = threading.Event(), []

    class Watched(FakeSynthesizer):
        def __call__(self, batch):
            made.append(len(batch["k"]))
            if len(made) == 2:
                second.set()
            return super().__call__(batch)

    def slow_encode(image, *look):
        assert second.wait(30)
        # One batch is encoded and one is made meanwhile; images must not pile up.
        assert len(made) <= 1 + len(encoded) // 3 + 1
        encoded.append(encode_image(image, *look))
        return encoded[-1]

    encoded = []
    monkeypatch.setattr("t2ipal.synthesis.worker.encode_image", slow_encode)
    request = a_request(texts(6), images_per_shard=12)
    watched, plain = Store(tmp_path / "watched"), Store(tmp_path / "plain")
    synthesize(watched, request, factory=Watched)
    assert made == [3, 3, 3, 3] and len(encoded) == 12
    monkeypatch.undo()
    synthesize(plain, request, factory=FakeSynthesizer)
    assert run_contents(watched) == run_contents(plain)


def test_the_device_makes_one_shard_after_the_other(tmp_path, monkeypatch):
    """Two that took turns would both end at once, and leave it idle."""
    made = []

    class Watched(FakeSynthesizer):
        def __call__(self, batch):
            made.append(int(batch["caption_id"][0].split()[1]) // 4)
            return super().__call__(batch)

    def slow_encode(image, *look):
        time.sleep(0.005)
        return encode_image(image, *look)

    monkeypatch.setattr("t2ipal.synthesis.worker.encode_image", slow_encode)
    request = a_request(texts(8), images_per_shard=8)
    store = Store(tmp_path)
    record_request(store, request.captions.kept, [], 2, 8)
    worker = ShardWorker(store, request.config, Watched)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(worker, plan_run(store, request.settings())))
    assert made in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])
