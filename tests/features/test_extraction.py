import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_synthesis import FakeConfig
from small_shard import all_samples
from tiny_clip import VIT, write_tiny_clip

from benchmarks.chaos.checks import run_contents
from t2ipal.captions import Caption, FilterResult, Vocabulary
from t2ipal.engine.extraction import on_ray as extraction_on_ray
from t2ipal.engine.pool import on_ray
from t2ipal.features import extraction
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.extraction import (
    FeatureExtractor,
    FeatureTask,
    all_tasks,
    batched,
    extract_run,
    extracting,
    feature_folder,
    image_set,
    missing_tasks,
    multi_hot,
    text_set,
)
from t2ipal.features.reading import read_hashes, read_training_features
from t2ipal.pools import PoolConfig
from t2ipal.store import Store, read_arrays, read_encoded_images, read_images, read_run
from t2ipal.store.images import ENDINGS
from t2ipal.synthesis import worker as shard_worker
from t2ipal.synthesis.growth import plan_run, record_request
from t2ipal.synthesis.making import add_images, synthesize
from t2ipal.synthesis.request import ExecutionConfig, SynthesisRequest
from t2ipal.synthesis.worker import ShardWorker

TEXTS = [
    "a dog",
    "a cat that must fail",
    "a dog and a cat on a sofa, seen from very far away, on a rainy day",
    "two cats",
    "the dog is called rex and it is a very good dog indeed",
    "a cat",
    "dogs",
]
LABELS = [(0,), (1,), (0, 1), (1,), (0,), (1,), (0,)]


class FakeSynthesizer:
    """One color for each caption and k; no second image of the first caption."""

    def __init__(self, config):
        self.config = config

    def __call__(self, batch):
        pairs = list(zip(batch["caption"], batch["k"]))
        failed = ["fail" in text or (text == "a dog" and k == 1) for text, k in pairs]
        colors = [[len(text) * 3, 80 * k, 99] for text, k in pairs]
        return {
            **batch,
            "image": np.array(colors, dtype=np.uint8)[:, None, None] + np.zeros((32, 32, 1), "u1"),
            "seed": np.arange(len(pairs), dtype=np.uint64),
            "status": np.where(failed, "failed", "ok"),
            "reason": np.where(failed, "black", ""),
        }


class GrainySynthesizer(FakeSynthesizer):
    """With grain, which a JPEG or WebP loses, another one from another `noise`."""

    noise = 0

    def __call__(self, batch):
        output = super().__call__(batch)
        for image, text, k in zip(output["image"], batch["caption"], batch["k"]):
            rng = np.random.default_rng([self.noise, k, *text.encode()])
            image += rng.integers(0, 40, image.shape, dtype=np.uint8)
        return output


class OtherGrain(GrainySynthesizer):
    """As the same model on another kind of device."""

    noise = 1


class MendedSynthesizer(FakeSynthesizer):
    def __call__(self, batch):
        output = super().__call__(batch)
        return {**output, "status": np.full(len(batch["k"]), "ok")}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = write_tiny_clip(tmp_path_factory.mktemp("clip"), VIT)
    return BackboneConfig(model=str(folder))


@pytest.fixture(scope="module")
def backbone(config):
    return load_backbone(config)


def pets(count, config):
    """Images of the first captions, in shards of six images at most."""
    pairs = zip(TEXTS[:count], LABELS)
    captions = [Caption(f"id {i}", *pair) for i, pair in enumerate(pairs)]
    return SynthesisRequest(
        config,
        Vocabulary("pets", ("dog", "cat"), ("dog", "cat"), ((), ())),
        FilterResult(captions, [Caption("x", "a house", reason="no class")]),
        images_per_shard=6,
    )


def synthesize_pets(store, count, images_per_caption=2, retry_failed=False):
    request = pets(count, FakeConfig(images_per_caption=images_per_caption))
    run = ExecutionConfig(max_failed_fraction=0.9, retry_failed=retry_failed)
    factory = MendedSynthesizer if retry_failed else FakeSynthesizer
    synthesize(store, request, run, factory=factory)


@pytest.fixture
def store(tmp_path):
    """A finished run of seven captions with two images each, in three shards."""
    store = Store(tmp_path / "run")
    synthesize_pets(store, 7)
    return store


def left(store, folder):
    """What is still to be computed."""
    return missing_tasks(read_run(store), folder)


def extract_all(store, backbone):
    extract, folder = FeatureExtractor(store, backbone), feature_folder(backbone)
    for task in left(store, folder):
        extract(task)
    return folder


def assert_halves_of(stored, exact):
    torch.testing.assert_close(stored, exact.float(), rtol=2e-3, atol=1e-3)


def test_stored_features_are_the_backbones(store, backbone, monkeypatch):
    monkeypatch.setattr(extraction, "CAPTIONS_PER_SHARD", 4)
    monkeypatch.setattr(extraction, "BATCH_SIZE", 2)
    features = read_training_features(store, extract_all(store, backbone))
    texts, seen_images = features.texts.rows(slice(None)), features.images.rows(slice(None))

    direct = backbone.encode_texts(TEXTS)
    assert torch.equal(texts.mask, direct.mask)
    assert_halves_of(texts.global_features, direct.global_features)
    kept = direct.mask[..., None]
    assert_halves_of(texts.local_features * kept, direct.local_features * kept)
    assert texts.labels.tolist() == [
        [1, 0],
        [0, 1],
        [1, 1],
        [0, 1],
        [1, 0],
        [0, 1],
        [1, 0],
    ]

    # Captions 0 (its second) and 1 (both) have failed; the others count on.
    expected = [[0, -1], [-1, -1], [1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
    assert features.image_of_caption.tolist() == expected
    images = [image for k in range(3) for _, image in read_images(store, f"{k:05d}")]
    seen = backbone.encode_images(torch.from_numpy(np.stack(images)))
    assert_halves_of(seen_images.global_features, seen.global_features)
    assert_halves_of(seen_images.local_features, seen.local_features)
    assert_halves_of(seen_images.pooled_features, seen.pooled_features)
    assert seen_images.mask is None
    labels = [row.labels for row in all_samples(store) if row.is_image]
    assert torch.equal(seen_images.labels, multi_hot(labels, 2))


def test_features_of_a_run_that_grew_and_was_mended(tmp_path, backbone):
    """Only what is new is computed, and rows find their captions as in a run made at once."""
    grown, whole = Store(tmp_path / "grown"), Store(tmp_path / "whole")
    synthesize_pets(grown, 4, images_per_caption=1)
    folder = extract_all(grown, backbone)
    old = {key: grown.read(key) for key in grown.list(folder)}
    synthesize_pets(grown, 7)
    synthesize_pets(grown, 7, retry_failed=True)
    synthesize_pets(whole, 7)
    synthesize_pets(whole, 7, retry_failed=True)
    for store in (grown, whole):
        extract_all(store, backbone)
    assert {key: grown.read(key) for key in old} == old
    first, second = (read_training_features(store, folder) for store in (grown, whole))
    assert_halves_of(*(data.texts.column("global_features") for data in (first, second)))
    assert first.image_of_caption.shape == (7, 2) and (first.image_of_caption >= 0).all()
    ours, theirs = (data.images.rows(data.image_of_caption.flatten()) for data in (first, second))
    for name in ("global_features", "local_features", "labels"):
        assert_halves_of(getattr(ours, name), getattr(theirs, name))


def image_features(store, folder):
    return {key: store.read(key) for key in store.list(f"{folder}/images-")}


LENIENT = ExecutionConfig(max_failed_fraction=0.9)


@pytest.mark.parametrize("image_format", ENDINGS)
def test_features_from_the_worker_that_made_the_images(tmp_path, backbone, config, image_format):
    """The bytes that extraction would store, for a shard, its retry and a repair; nothing else."""
    plain, fast = Store(tmp_path / "plain"), Store(tmp_path / "fast")
    request = pets(7, FakeConfig(image_format=image_format))
    retry = replace(LENIENT, retry_failed=True)
    folder = feature_folder(backbone)
    for store, then in ((plain, None), (fast, partial(extracting, config))):
        synthesize(store, request, LENIENT, factory=GrainySynthesizer, after_commit=then)
        synthesize(store, request, retry, factory=MendedSynthesizer, after_commit=then)
        add_images(store, {0: 2, 3: 1}, factory=GrainySynthesizer, after_commit=then)
    taken = image_features(fast, folder)
    assert len(taken) == 5 and f"{folder}/images-00000-retry1.safetensors" in taken
    assert not plain.list("features/")
    assert {task.kind for task in left(fast, folder)} == {"texts"}
    extract_all(plain, backbone)
    assert image_features(plain, folder) == taken
    # Of images there is the same, whoever takes the features.
    both = (run_contents(store) for store in (plain, fast))
    ours, theirs = ({k: v for k, v in one.items() if not k.startswith("feat")} for one in both)
    assert ours == theirs

    # And the grain is in the features: they are of what is stored.
    drawn = GrainySynthesizer(None)({"caption": ["two cats"], "k": [0]})["image"]
    seen = backbone.encode_images(torch.from_numpy(drawn)).global_features[0]
    data = read_training_features(fast, extract_all(fast, backbone))
    stored = data.images.column("global_features", data.image_of_caption[3, :1])[0]
    difference = (stored - seen).abs().max()
    assert difference < 1e-3 if image_format == "png" else difference > 1e-3


def test_features_that_the_worker_did_not_store(tmp_path, backbone, config, monkeypatch):
    """Killed after the marker, or late with other images: extraction then takes them."""
    store, folder = Store(tmp_path), feature_folder(backbone)
    request = pets(4, FakeConfig())

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extraction, "image_set", killed)
        synthesize(
            store,
            request,
            LENIENT,
            factory=GrainySynthesizer,
            after_commit=partial(extracting, config),
        )
    assert store.exists("images/00000.json") and not store.list("features/")
    synthesize(
        store, request, LENIENT, factory=GrainySynthesizer, after_commit=partial(extracting, config)
    )
    assert [*image_features(store, folder)] == [f"{folder}/images-00001.safetensors"]

    (plan,) = (p for p in plan_run(store, request.settings()) if p.shard == "00000")
    monkeypatch.setattr(
        shard_worker, "read_marker", lambda *_: None
    )  # it came while these were drawing
    late = ShardWorker(store, request.config, OtherGrain, after_commit=partial(extracting, config))
    late(plan)
    assert len(image_features(store, folder)) == 1
    then = partial(extracting, config)
    ShardWorker(store, request.config, GrainySynthesizer, after_commit=then)(plan)
    taken = image_features(store, folder)
    assert len(taken) == 2
    for key in taken:
        (tmp_path / key).unlink()
    extract_all(store, backbone)
    assert image_features(store, folder) == taken


def test_a_run_that_was_asked_for_more_is_not_finished(tmp_path, backbone, config):
    store, larger = Store(tmp_path), pets(20, FakeConfig())
    synthesize(store, pets(4, FakeConfig()), LENIENT, factory=GrainySynthesizer)
    folder = extract_all(store, backbone)
    record_request(store, larger.captions.kept, [], 2, larger.images_per_shard)
    message = r"was asked for more, and \d shards of it are missing. Run jobs/synthesize.py again"
    with pytest.raises(FileNotFoundError, match=message):
        read_training_features(store, folder)
    synthesize(
        store, larger, LENIENT, factory=GrainySynthesizer, after_commit=partial(extracting, config)
    )
    assert {task.kind for task in left(store, folder)} == {"texts"}


def test_features_without_a_marker_do_not_count(store, backbone):
    folder = extract_all(store, backbone)
    before = read_training_features(store, folder)
    hashes = read_hashes(read_run(store), before.images)
    data = store.read(FeatureTask("images", "00001").key(folder))
    for shard in ("00000-retry1", "00003"):
        store.write(FeatureTask("images", shard).key(folder), data)
    assert left(store, folder) == []
    after = read_training_features(store, folder)
    local = (data.images.column("local_features") for data in (before, after))
    assert torch.equal(*local)
    assert torch.equal(read_hashes(read_run(store), after.images), hashes)


def test_an_accelerator_draws_or_looks(store, backbone, config, monkeypatch):
    """Never both at once; a CPU may do what it likes."""
    worker = ShardWorker(
        store, FakeConfig(), FakeSynthesizer, after_commit=partial(extracting, config)
    )
    assert worker._after_commit.__self__.turn is not worker._device

    class OnAccelerator:
        device = torch.device("cuda")
        config = BackboneConfig()
        fingerprint = "0"
        embed_dim = 12

    monkeypatch.setattr(extraction, "load_backbone", lambda config: OnAccelerator())
    worker = ShardWorker(
        store, FakeConfig(), FakeSynthesizer, after_commit=partial(extracting, config)
    )

    def watched(backbone, images, labels):
        assert worker._device.locked()
        raise InterruptedError

    monkeypatch.setattr(extraction, "image_set", watched)
    with pytest.raises(InterruptedError):
        worker._after_commit(
            "00002", {row.key: data for row, data in read_encoded_images(store, "00002")}
        )
    assert not worker._device.locked()


def test_finished_tasks_are_left_out(store, backbone):
    folder = feature_folder(backbone)
    tasks = left(store, folder)
    assert tasks == all_tasks(read_run(store))
    names = [
        ("texts", "00000000-00000007"),
        ("images", "00000"),
        ("images", "00001"),
        ("images", "00002"),
    ]
    assert [(task.kind, task.name) for task in tasks] == names
    extract = FeatureExtractor(store, backbone)
    assert extract(tasks[0]) == 7
    assert extract(tasks[1]) == 3  # of six, three have failed
    assert left(store, folder) == tasks[2:]
    with pytest.raises(FileNotFoundError, match=r"2 feature shards are missing .* Run jobs/train"):
        read_training_features(store, folder)
    assert len(left(store, "features/of another backbone")) == 4


class HopelessSynthesizer(FakeSynthesizer):
    def __call__(self, batch):
        return {**super().__call__(batch), "status": np.full(len(batch["k"]), "failed")}


def test_a_run_without_images(tmp_path, backbone):
    """Shards in which every sample has failed hold no feature."""
    store, folder = Store(tmp_path), feature_folder(backbone)
    lenient = ExecutionConfig(max_failed_fraction=1)
    synthesize(store, pets(7, FakeConfig()), lenient, factory=HopelessSynthesizer)
    extract_all(store, backbone)
    arrays, keys = read_arrays(store, FeatureTask("images", "00000").key(folder))
    assert arrays["global_features"].shape == (0, backbone.embed_dim) and keys == []
    features = read_training_features(store, folder)
    assert features.images is None
    assert features.image_of_caption.tolist() == [[-1]] * 7


def test_every_row_carries_the_key_of_its_sample(store, backbone, monkeypatch):
    monkeypatch.setattr(extraction, "CAPTIONS_PER_SHARD", 4)
    monkeypatch.setattr(extraction, "BATCH_SIZE", 2)
    folder, run = extract_all(store, backbone), read_run(store)
    keys = {task.name: read_arrays(store, task.key(folder))[1] for task in all_tasks(run)}
    assert keys["00000000-00000004"] == ["id 0", "id 1", "id 2", "id 3"]
    assert keys["00000004-00000007"] == ["id 4", "id 5", "id 6"]
    images = [key for shard in ("00000", "00001", "00002") for key in keys[shard]]
    assert images == [sample.key for sample in run.images]
    data = read_training_features(store, folder)
    assert data.texts.keys == [caption.caption_id for caption in run.captions]
    assert data.images.keys == images


def test_features_of_another_shard_are_noticed(store, backbone):
    folder = extract_all(store, backbone)
    key = FeatureTask("images", "00001").key(folder)
    store.write(key, store.read(FeatureTask("images", "00000").key(folder)))
    message = (
        r"images-00001.safetensors in .* holds the features of other samples: the run has "
        r"'00001-00000' there, the features '00000-00000'. Remove it and run the command again"
    )
    with pytest.raises(ValueError, match=message):
        read_training_features(store, folder)


def test_an_unfinished_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No manifest .* Run jobs/synthesize\.py first"):
        read_training_features(Store(tmp_path), "features/x")


def test_nothing_to_take_features_of(backbone):
    with pytest.raises(ValueError, match="at least one caption"):
        text_set(backbone, [], torch.zeros(0, 1))
    with pytest.raises(ValueError, match="at least one image"):
        image_set(backbone, [], torch.zeros(0, 1))


def test_batched():
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched(iter("ab"), 2)) == [["a", "b"]]
    assert list(batched([], 2)) == []


def test_multi_hot():
    assert multi_hot([(2, 0), ()], 3).tolist() == [[1, 0, 1], [0, 0, 0]]


def test_ray_computes_the_same_features(ray_session, store, backbone, config):
    folder = extract_run(store, config)
    assert folder == feature_folder(backbone)
    alone = {key: read_arrays(store, key) for key in store.list(f"{folder}/")}
    assert len(alone) == 4
    two = partial(extraction_on_ray, pool=PoolConfig(min_workers=2))
    shutil.rmtree(Path(store.uri) / folder)
    assert extract_run(store, config, workers=two, progress=True) == folder
    assert store.list(f"{folder}/") == list(alone)
    for key, (arrays, row_keys) in alone.items():
        ours, our_keys = read_arrays(store, key)
        assert ours.keys() == arrays.keys() and our_keys == row_keys
        for name, values in arrays.items():
            np.testing.assert_allclose(ours[name], values, atol=1e-3)
    assert extract_run(store, config, workers=None) == folder  # nothing is left to do


def test_workers_on_ray_store_features_too(ray_session, one_thread, tmp_path, backbone, config):
    request, folder = pets(7, FakeConfig()), feature_folder(backbone)
    pooled, alone = Store(tmp_path / "pooled"), Store(tmp_path / "alone")
    synthesize(
        pooled,
        request,
        replace(LENIENT, min_workers=2),
        workers=on_ray,
        factory=GrainySynthesizer,
        after_commit=partial(extracting, config),
    )
    assert len(image_features(pooled, folder)) == 3
    synthesize(alone, request, LENIENT, factory=GrainySynthesizer)
    for store in (pooled, alone):  # with as many threads as a worker has
        assert extract_run(store, config) == folder
    assert image_features(pooled, folder) == image_features(alone, folder)
    broken = replace(config, model=str(tmp_path))
    with pytest.raises(RuntimeError, match=r"A worker stopped: .* must hold open_clip_config.json"):
        synthesize(
            Store(tmp_path / "new"),
            request,
            ExecutionConfig(min_workers=1),
            workers=on_ray,
            factory=FakeSynthesizer,
            after_commit=partial(extracting, broken),
        )
