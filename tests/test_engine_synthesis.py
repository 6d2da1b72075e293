import dataclasses
import hashlib
import io
import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from benchmarks.chaos_checks import run_contents
from t2ipal.captions import FilterResult, LabelledCaption, RejectedCaption, Vocabulary
from t2ipal.config import added, fingerprint, to_dict
from t2ipal.engine.growth import plan_run, record_request
from t2ipal.engine.plans import ShardPlan, ShardWorker, image_settings, plan_shards
from t2ipal.engine.pool import RunConfig, _pool_size
from t2ipal.engine.synthesis import (
    SynthesisRequest,
    add_images,
    remake,
    synthesize,
    synthesize_locally,
)
from t2ipal.images import ENDINGS, decode_image, encode_image
from t2ipal.store import (
    Section,
    Store,
    commit_shard,
    read_encoded_images,
    read_images,
    read_manifest,
    read_rows,
    read_stored_captions,
    run_status,
)
from t2ipal.synthesis import SynthesisConfig


@dataclass(frozen=True)
class FakeConfig:
    pipeline: str = "fake"
    guidance_scale: float = 2.0
    images_per_caption: int = 2
    seed: int = 0
    batch_size: int = 3
    jpeg_quality: int = 90
    image_format: str = added("jpeg")
    jpeg_subsampling: str = added("4:2:0")


@dataclass(frozen=True)
class OldConfig:
    """As it was when every image was a JPEG: what is no field is not stored."""

    pipeline: str = "fake"
    guidance_scale: float = 2.0
    images_per_caption: int = 2
    seed: int = 0
    batch_size: int = 3
    jpeg_quality: int = 90
    image_format: ClassVar[str] = "jpeg"
    jpeg_subsampling: ClassVar[str] = "4:2:0"


PETS = Vocabulary("pets", ("dog", "cat"), ("dog", "cat"), (("puppy",), ("kitten",)))


def caption(caption_id, text, labels=(0,)):
    return LabelledCaption(caption_id, text, labels)


class FakeSynthesizer:
    """Noise from the sample's seed, tinted by the batch size; some captions fail or raise."""

    def __init__(self, config):
        self.config = config

    def __call__(self, batch):
        images, seeds, status, reasons = [], [], [], []
        if any("raise" in text for text in batch["caption"]):
            raise RuntimeError("out of paint")
        for caption_id, text, k in zip(batch["caption_id"], batch["caption"], batch["k"]):
            name = f"{self.config.seed}/{caption_id}/{k}"
            seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
            image = np.random.default_rng(seed).integers(0, 200, (16, 24, 3))
            images.append((image + len(batch["k"])).astype(np.uint8))
            seeds.append(seed)
            status.append("failed" if "fail" in text else "ok")
            reasons.append("black image" if "fail" in text else "")
        return {
            **batch,
            "image": np.stack(images),
            "seed": np.array(seeds, dtype=np.uint64),
            "status": np.array(status),
            "reason": np.array(reasons),
        }


class BrokenSynthesizer:
    def __init__(self, config):
        raise FileNotFoundError(f"No weights at {config.pipeline}.")


class CountingSynthesizer(FakeSynthesizer):
    num_samples = 0

    def __call__(self, batch):
        CountingSynthesizer.num_samples += len(batch["k"])
        return super().__call__(batch)


def a_request(texts=None, config=None, **changes):
    texts = texts or [f"a dog and cat number {i}" for i in range(11)]
    return SynthesisRequest(
        config=config or FakeConfig(),
        vocabulary=PETS,
        captions=FilterResult(
            [caption(f"id {i}", text, (0, 1)[: 1 + i % 2]) for i, text in enumerate(texts)],
            [RejectedCaption("r", "a house", "no class")],
        ),
        **{"images_per_shard": 8, **changes},
    )


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
    retry = dataclasses.replace(plan, shard="00000-retry1", positions=(1,))
    assert ShardPlan.from_json(retry.to_json()) == retry
    assert retry.samples == plan.samples[1:]


def test_plan_identity_follows_content_and_settings():
    captions = [caption("1", "one"), caption("2", "two")]
    values = {"images_per_caption": 2, "seed": 1}

    def identity(captions, values):
        return plans_of(captions, values, 2)[0].identity()

    same = identity(captions, values)
    assert identity(captions[:1], values) == same  # a larger set leaves old shards alone
    assert identity(captions, {**values, "seed": 2}) != same
    assert identity([caption("1", "ONE"), captions[1]], values) != same


def test_local_run_stores_rows_images_captions_and_manifest(tmp_path):
    store = Store(tmp_path / "run")
    summary = synthesize_locally(store, a_request(), factory=FakeSynthesizer)
    assert (summary.num_captions, summary.num_images, summary.num_failed) == (11, 22, 0)
    assert (summary.num_shards, summary.num_shards_skipped) == (3, 0)
    assert summary.images_per_second > 0
    rows = read_rows(store).to_pylist()
    assert [(row["caption_id"], row["k"]) for row in rows[:3]] == [
        ("id 0", 0),
        ("id 0", 1),
        ("id 1", 0),
    ]
    assert rows[2]["labels"] == [0, 1]
    assert (rows[0]["width"], rows[0]["height"], rows[0]["status"]) == (24, 16, "ok")
    row, image = next(read_images(store, "00000"))
    assert row == rows[0]
    assert image.shape == (16, 24, 3)
    manifest = read_manifest(store)
    assert manifest["class_names"] == ["dog", "cat"]
    assert manifest["num_images"] == 22
    assert manifest["settings"]["synthesis"]["guidance_scale"] == 2.0
    assert read_stored_captions(store).num_rows == 11
    assert read_stored_captions(store, "rejected").to_pylist()[0]["reason"] == "no class"


def test_a_bucket_holds_the_same_bytes_as_a_folder(tmp_path, s3_server):
    folder, bucket = Store(tmp_path), Store("s3://runs/bytes", s3_server)
    for store in (folder, bucket):
        synthesize_locally(store, a_request(), factory=FakeSynthesizer)
    assert run_contents(bucket) == run_contents(folder)
    assert synthesize_locally(bucket, a_request()).num_shards_skipped == 3


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

    monkeypatch.setattr("t2ipal.engine.plans.commit_shard", slow_commit)
    request = a_request(texts(8), images_per_shard=8)
    store = Store(tmp_path)
    record_request(store, request.captions.kept, [], 2, 8)
    first, second = plan_run(store, request.settings())
    worker = ShardWorker(store, request.config, Watched)
    with ThreadPoolExecutor(1) as pool:
        marker = pool.submit(worker, first)
        assert uploading.wait(30)
        assert worker(second)["shard"] == "00001"
        assert marker.result()["shard"] == "00000"


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
    monkeypatch.setattr("t2ipal.engine.plans.encode_image", slow_encode)
    request = a_request(texts(6), images_per_shard=12)
    watched, plain = Store(tmp_path / "watched"), Store(tmp_path / "plain")
    synthesize_locally(watched, request, factory=Watched)
    assert made == [3, 3, 3, 3] and len(encoded) == 12
    monkeypatch.undo()
    synthesize_locally(plain, request, factory=FakeSynthesizer)
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

    monkeypatch.setattr("t2ipal.engine.plans.encode_image", slow_encode)
    request = a_request(texts(8), images_per_shard=8)
    store = Store(tmp_path)
    record_request(store, request.captions.kept, [], 2, 8)
    worker = ShardWorker(store, request.config, Watched)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(worker, plan_run(store, request.settings())))
    assert made in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])


def test_rerun_skips_finished_shards_and_remakes_missing_ones(tmp_path):
    store = Store(tmp_path)
    synthesize_locally(store, a_request(), factory=FakeSynthesizer)
    before = run_contents(store)
    (tmp_path / "images/00001.json").unlink()  # as if killed before the marker
    (tmp_path / "images/00001.tar").write_bytes(b"half a tar")
    (tmp_path / "manifest.json").unlink()
    CountingSynthesizer.num_samples = 0
    summary = synthesize_locally(store, a_request(), factory=CountingSynthesizer)
    assert (summary.num_shards_skipped, CountingSynthesizer.num_samples) == (2, 8)
    assert run_contents(store) == before
    summary = synthesize_locally(store, a_request(), factory=BrokenSynthesizer)
    assert summary.num_shards_skipped == 3  # nothing is loaded where nothing is left to do


def test_failed_samples_are_rows_without_images(tmp_path):
    store = Store(tmp_path)
    texts = ["a dog", "a fail dog", "a cat", "a raise cat", "a dog"]
    config = FakeConfig(images_per_caption=1)
    run = RunConfig(max_failed_fraction=0.4)
    summary = synthesize_locally(store, a_request(texts, config), run, factory=FakeSynthesizer)
    assert (summary.num_images, summary.num_failed) == (3, 2)
    rows = read_rows(store).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "failed", "ok", "failed", "ok"]
    assert [row["reason"] for row in rows if row["reason"]] == [
        "black image",
        "RuntimeError: out of paint",
    ]
    assert rows[3]["seed"] is None
    stored = [row["caption_id"] for row, _ in read_images(store, "00000")]
    assert stored == ["id 0", "id 2", "id 4"]


def test_too_many_failures_stop_the_run_and_name_the_reason(tmp_path):
    texts = ["a fail dog", "a dog", "a dog"]
    with pytest.raises(RuntimeError, match=r"2 of 6 samples failed.*2 times\): black image"):
        synthesize_locally(Store(tmp_path), a_request(texts), factory=FakeSynthesizer)
    assert not Store(tmp_path).exists("manifest.json")


def test_another_runs_folder_is_refused_and_left_alone(tmp_path):
    store = Store(tmp_path)
    synthesize_locally(store, a_request(), factory=FakeSynthesizer)
    before = run_contents(store)
    other = a_request(config=FakeConfig(guidance_scale=3.0))
    message = r"holds another run.*synthesis.guidance_scale: 2.0 there, 3.0 here"
    with pytest.raises(ValueError, match=message):
        synthesize_locally(store, other, factory=FakeSynthesizer)
    assert run_contents(store) == before


@pytest.mark.parametrize("image_format", ENDINGS)
def test_images_in_each_format(tmp_path, image_format):
    """A run in one of them stores the same bytes twice, grows, and makes one image again."""
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    config = FakeConfig(image_format=image_format)
    for store in (one, two):
        synthesize_locally(store, a_request(texts(4), config), factory=FakeSynthesizer)
    assert run_contents(one) == run_contents(two)
    synthesize_locally(one, a_request(texts(6), config), factory=FakeSynthesizer)
    keys = []
    for shard in ("00000", "00001"):
        for row, data in read_encoded_images(one, shard):
            assert Image.open(io.BytesIO(data)).format == image_format.upper()
            keys.append(row["key"])
    assert keys == read_rows(one)["key"].to_pylist() and len(keys) == 12
    row, image, same = remake(one, keys[9], FakeSynthesizer)
    assert (row["key"], same) == (keys[9], True)
    pixels = FakeSynthesizer(config)({"caption_id": ["id 4"], "caption": ["a"], "k": [1]})["image"][
        0
    ]
    error = np.abs(decode_image(image).astype(int) - pixels).mean()
    assert error == 2 if image_format == "png" else 0 < error < 60  # its batch's tint is 2 more


def test_a_run_of_another_format_is_refused(tmp_path):
    store = Store(tmp_path)
    synthesize_locally(store, a_request(), factory=FakeSynthesizer)
    for changes, line in (
        ({"image_format": "png"}, "synthesis.image_format: None there, 'png' here"),
        ({"jpeg_subsampling": "4:4:4"}, "synthesis.jpeg_subsampling: None there, '4:4:4' here"),
    ):
        with pytest.raises(ValueError, match=f"holds another run. Differences: {line}"):
            synthesize_locally(store, a_request(config=FakeConfig(**changes)))


def test_a_run_from_before_there_were_formats_goes_on(tmp_path):
    old = a_request(texts(4), OldConfig())
    assert "image_format" in {field.name for field in dataclasses.fields(FakeConfig)}
    assert old.fixed_settings() == a_request(texts(4)).fixed_settings()
    store, whole = Store(tmp_path / "old"), Store(tmp_path / "whole")
    synthesize_locally(store, old, factory=FakeSynthesizer)
    grown = synthesize_locally(store, a_request(texts(6)), factory=FakeSynthesizer)
    assert (grown.num_shards, grown.num_shards_skipped) == (2, 1)
    for count in (4, 6):
        synthesize_locally(whole, a_request(texts(count)), factory=FakeSynthesizer)
    assert run_contents(store) == run_contents(whole)
    # What was stored under a version's default settings is stored under them ever after.
    assert fingerprint(image_settings(to_dict(SynthesisConfig()))) == "0d376492a7e85f5a"


def test_a_shard_of_another_plan_is_refused(tmp_path):
    store = Store(tmp_path)
    synthesize_locally(store, a_request(), factory=FakeSynthesizer)
    path = tmp_path / "images/00001.json"
    marker = json.loads(path.read_text())
    marker["plan"]["num_samples"], marker["plan_hash"] = 9, "0" * 16
    path.write_text(json.dumps(marker))
    with pytest.raises(ValueError, match=r"Shard 00001 .*num_samples: 9 there, 8 here"):
        synthesize_locally(store, a_request(), factory=FakeSynthesizer)


def texts(count):
    return [f"a dog and cat number {i}" for i in range(count)]


@pytest.mark.parametrize("steps", [[(3, 1), (7, 1)], [(5, 1), (5, 4)], [(3, 1), (6, 2), (6, 5)]])
def test_a_run_grows_without_touching_old_shards(tmp_path, steps):
    store, before = Store(tmp_path / "grown"), {}
    for count, images in steps:
        config = FakeConfig(images_per_caption=images)
        request = a_request(texts(count), config)
        summary = synthesize_locally(store, request, factory=FakeSynthesizer)
        now = run_contents(store)
        kept = {key: now[key] for key in before if key.startswith(("images/", "config"))}
        assert kept == {key: data for key, data in before.items() if key in kept}
        before = now
        assert summary.num_images == count * images
        rows = read_rows(store).to_pylist()
        samples = {(row["caption_id"], row["k"]) for row in rows}
        assert samples == {(f"id {i}", k) for i in range(count) for k in range(images)}
        assert len(rows) == count * images
        assert read_manifest(store)["settings"]["num_captions"] == count
        assert read_stored_captions(store).num_rows == count
    again = synthesize_locally(store, request, factory=BrokenSynthesizer)
    assert again.num_shards_skipped == again.num_shards and run_contents(store) == before


def test_a_run_never_shrinks(tmp_path):
    store = Store(tmp_path)
    synthesize_locally(store, a_request(), factory=FakeSynthesizer)
    before = run_contents(store)
    with pytest.raises(ValueError, match=r"holds 11 captions, and 1 of them .* \(first: id 10\)"):
        synthesize_locally(store, a_request(texts(10)), factory=FakeSynthesizer)
    with pytest.raises(ValueError, match=r"images_per_caption: 2 there, 1 here. A run only grows"):
        synthesize_locally(store, a_request(config=FakeConfig(images_per_caption=1)))
    assert run_contents(store) == before


def test_a_request_given_up_before_its_first_shard_gives_way(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(FileNotFoundError):
        synthesize_locally(store, a_request(texts(99)), factory=BrokenSynthesizer)
    summary = synthesize_locally(store, a_request(texts(3)), factory=FakeSynthesizer)
    assert summary.num_captions == 3 and read_stored_captions(store).num_rows == 3


def test_growth_that_was_cut_short_goes_on(tmp_path):
    """Killed between the sections of two growths: the next run finds what is missing."""
    store, whole = Store(tmp_path / "cut"), Store(tmp_path / "whole")
    larger = a_request(texts(6), FakeConfig(images_per_caption=3))
    for each in (store, whole):
        synthesize_locally(each, a_request(texts(4)), factory=FakeSynthesizer)
    record_request(store, larger.captions.kept[:4], [], 3, 8)  # its second section never came
    for each in (store, whole):
        synthesize_locally(each, larger, factory=FakeSynthesizer)
    assert run_contents(store) == run_contents(whole)


class MendedSynthesizer(FakeSynthesizer):
    """Makes what FakeSynthesizer fails at, but for captions with "hopeless"."""

    def __call__(self, batch):
        assert all("fail" in text for text in batch["caption"])
        mended = [t if "hopeless" in t else t.replace("fail", "") for t in batch["caption"]]
        return super().__call__({**batch, "caption": np.array(mended)})


def test_failed_samples_are_tried_again_alone(tmp_path):
    store = Store(tmp_path)
    request = a_request(["a dog", "a fail dog", "a cat", "a hopeless fail cat", "a dog"])
    lenient = RunConfig(max_failed_fraction=0.5)
    synthesize_locally(store, request, lenient, factory=FakeSynthesizer)
    first = run_contents(store)
    again = dataclasses.replace(lenient, retry_failed=True)
    for attempt in (1, 2):
        summary = synthesize_locally(store, request, again, factory=MendedSynthesizer)
        assert (summary.num_images, summary.num_failed) == (8, 2)
        assert store.exists(f"images/00000-retry{attempt}.json")
    now = run_contents(store)
    assert all(now[key] == data for key, data in first.items() if key != "manifest.json")
    rows = read_rows(store).to_pylist()
    assert len({(row["caption_id"], row["k"]) for row in rows}) == len(rows) == 10
    assert {row["caption_id"] for row in rows if row["status"] == "failed"} == {"id 3"}
    mended = next(row for row in rows if row["caption_id"] == "id 1" and row["k"] == 1)
    assert mended["key"] == "00000-retry1-00001"
    shown = [row["key"] for row, _ in read_images(store, "00000-retry1")]
    assert shown == ["00000-retry1-00000", "00000-retry1-00001"]
    manifest = read_manifest(store)
    assert (manifest["num_images"], manifest["num_failed"]) == (8, 2)
    # Without the option nothing is tried, and what failed still counts.
    with pytest.raises(RuntimeError, match="2 of 10 samples failed"):
        synthesize_locally(store, request, factory=BrokenSynthesizer)


def test_some_captions_get_more_images(tmp_path):
    """With numbers of their own, in new shards; again without anything new, it does nothing."""
    store = Store(tmp_path)
    synthesize_locally(store, a_request(texts(5)), factory=FakeSynthesizer)
    before = run_contents(store)
    extras = {4: 1, 1: 3, 0: 2}
    summary = add_images(store, extras, factory=FakeSynthesizer, in_process=True)
    assert (summary.num_images, summary.num_captions) == (16, 5)
    now = run_contents(store)
    old = [key for key in before if key.startswith(("images/", "sections/", "config"))]
    assert {key: now[key] for key in old} == {key: before[key] for key in old}
    counts = Counter((row["caption_id"], row["k"]) for row in read_rows(store).to_pylist())
    more = {(f"id {at}", 2 + k) for at, count in extras.items() for k in range(count)}
    assert {*counts} == {(f"id {i}", k) for i in range(5) for k in range(2)} | more
    assert max(counts.values()) == 1
    status = run_status(store)
    assert status.num_samples == status.num_images == 16
    assert status.num_shards == status.num_shards_done == summary.num_shards

    again = add_images(store, {}, factory=BrokenSynthesizer, in_process=True)
    assert again.num_shards_skipped == summary.num_shards and run_contents(store) == now
    add_images(store, {1: 1}, factory=FakeSynthesizer, in_process=True)
    last = read_rows(store).to_pylist()[-1]
    assert (last["caption_id"], last["k"]) == ("id 1", 5)
    key = last["key"]
    assert remake(store, key, FakeSynthesizer)[2] is True

    # More captions are welcome, more images of every caption are not.
    grown = synthesize_locally(store, a_request(texts(6)), factory=FakeSynthesizer)
    assert grown.num_images == 19
    with pytest.raises(ValueError, match="was repaired: it cannot get more images of every"):
        synthesize_locally(store, a_request(texts(6), FakeConfig(images_per_caption=3)))


def test_extra_images_that_failed_are_tried_again(tmp_path):
    store = Store(tmp_path)
    run = RunConfig(max_failed_fraction=1)
    words = ["a dog", "a fail dog"]
    synthesize_locally(store, a_request(words), run, factory=FakeSynthesizer)
    add_images(store, {0: 1, 1: 2}, run, factory=FakeSynthesizer, in_process=True)
    retry = RunConfig(max_failed_fraction=1, retry_failed=True)
    done = add_images(store, {}, retry, factory=MendedSynthesizer, in_process=True)
    assert (done.num_images, done.num_failed) == (7, 0)
    ok = {(r["caption_id"], r["k"]) for r in read_rows(store).to_pylist() if r["status"] == "ok"}
    assert ok == {("id 0", 0), ("id 0", 1), ("id 0", 2), *(("id 1", k) for k in range(4))}


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


def test_request_checks():
    with pytest.raises(ValueError, match=r"nothing to draw"):
        dataclasses.replace(a_request(), captions=FilterResult([], []))
    with pytest.raises(ValueError, match=r"must be unique, got \['a'\]"):
        twice = FilterResult([caption("a", "x"), caption("a", "y")], [])
        dataclasses.replace(a_request(), captions=twice)
    with pytest.raises(ValueError, match=r"images_per_shard must be > 0, got 0"):
        a_request(images_per_shard=0)


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
