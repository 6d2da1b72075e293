import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_synthesis import FakeConfig
from PIL import Image
from tiny_clip import VIT, write_tiny_clip

from benchmarks.chaos_checks import run_contents
from t2ipal import extraction
from t2ipal.captions import FilterResult, LabelledCaption, RejectedCaption, Vocabulary
from t2ipal.engine import plans
from t2ipal.engine.growth import plan_run, record_request
from t2ipal.engine.plans import ShardWorker
from t2ipal.engine.pool import RunConfig
from t2ipal.engine.synthesis import (
    SynthesisRequest,
    add_images,
    synthesize,
    synthesize_locally,
)
from t2ipal.extraction import (
    FeatureExtractor,
    FeatureTask,
    batched,
    feature_folder,
    feature_tasks,
    image_set,
    load_photograph,
    multi_hot,
    read_hashes,
    read_training_features,
    text_set,
)
from t2ipal.features import BackboneConfig, load_backbone
from t2ipal.images import ENDINGS
from t2ipal.store import Store, read_arrays, read_images, read_rows

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
    captions = [LabelledCaption(f"id {i}", *pair) for i, pair in enumerate(pairs)]
    return SynthesisRequest(
        config,
        Vocabulary("pets", ("dog", "cat"), ("dog", "cat"), ((), ())),
        FilterResult(captions, [RejectedCaption("x", "a house", "no class")]),
        images_per_shard=6,
    )


def synthesize_pets(store, count, images_per_caption=2, retry_failed=False):
    request = pets(count, FakeConfig(images_per_caption=images_per_caption))
    run = RunConfig(max_failed_fraction=0.9, retry_failed=retry_failed)
    factory = MendedSynthesizer if retry_failed else FakeSynthesizer
    synthesize_locally(store, request, run, factory=factory)


@pytest.fixture
def store(tmp_path):
    """A finished run of seven captions with two images each, in three shards."""
    store = Store(tmp_path / "run")
    synthesize_pets(store, 7)
    return store


def extract_all(store, backbone):
    extract, folder = FeatureExtractor(store, backbone), feature_folder(backbone)
    for task in feature_tasks(store, folder):
        extract(task)
    return folder


def assert_halves_of(stored, exact):
    torch.testing.assert_close(stored, exact.float(), rtol=2e-3, atol=1e-3)


def test_stored_features_are_the_backbones(store, backbone, monkeypatch):
    monkeypatch.setattr(extraction, "CAPTIONS_PER_SHARD", 4)
    monkeypatch.setattr(extraction, "BATCH_SIZE", 2)
    features = read_training_features(store, extract_all(store, backbone))

    direct = backbone.encode_texts(TEXTS)
    assert torch.equal(features.texts.mask, direct.mask)
    assert_halves_of(features.texts.global_features, direct.global_features)
    kept = direct.mask[..., None]
    assert_halves_of(features.texts.local_features * kept, direct.local_features * kept)
    assert features.texts.labels.tolist() == [
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
    assert_halves_of(features.images.global_features, seen.global_features)
    assert_halves_of(features.images.local_features, seen.local_features)
    assert_halves_of(features.images.pooled_features, seen.pooled_features)
    assert features.images.mask is None
    labels = [row["labels"] for row in read_rows(store).to_pylist() if row["status"] == "ok"]
    assert torch.equal(features.images.labels, multi_hot(labels, 2))


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
    assert_halves_of(first.texts.global_features, second.texts.global_features)
    assert first.image_of_caption.shape == (7, 2) and (first.image_of_caption >= 0).all()
    for name in ("global_features", "local_features", "labels"):
        images = [
            getattr(features.images, name)[features.image_of_caption]
            for features in (first, second)
        ]
        assert_halves_of(*images)


def image_features(store, folder):
    return {key: store.read(key) for key in store.list(f"{folder}/images-")}


LENIENT = RunConfig(max_failed_fraction=0.9)


@pytest.mark.parametrize("image_format", ENDINGS)
def test_features_from_the_worker_that_made_the_images(tmp_path, backbone, config, image_format):
    """The bytes that extraction would store, for a shard, its retry and a repair; nothing else."""
    plain, fast = Store(tmp_path / "plain"), Store(tmp_path / "fast")
    request = pets(7, FakeConfig(image_format=image_format))
    retry = replace(LENIENT, retry_failed=True)
    folder = feature_folder(backbone)
    for store, features in ((plain, None), (fast, config)):
        synthesize_locally(store, request, LENIENT, factory=GrainySynthesizer, features=features)
        synthesize_locally(store, request, retry, factory=MendedSynthesizer, features=features)
        add_images(
            store, {0: 2, 3: 1}, factory=GrainySynthesizer, features=features, in_process=True
        )
    taken = image_features(fast, folder)
    assert len(taken) == 5 and f"{folder}/images-00000-retry1.safetensors" in taken
    assert not plain.list("features/")
    assert {task.kind for task in feature_tasks(fast, folder)} == {"texts"}
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
    difference = (data.images.global_features[data.image_of_caption[3, 0]] - seen).abs().max()
    assert difference < 1e-3 if image_format == "png" else difference > 1e-3


def test_features_that_the_worker_did_not_store(tmp_path, backbone, config, monkeypatch):
    """Killed after the marker, or late with other images: extraction then takes them."""
    store, folder = Store(tmp_path), feature_folder(backbone)
    request = pets(4, FakeConfig())

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extraction, "image_set", killed)
        synthesize_locally(store, request, LENIENT, factory=GrainySynthesizer, features=config)
    assert store.exists("images/00000.json") and not store.list("features/")
    synthesize_locally(store, request, LENIENT, factory=GrainySynthesizer, features=config)
    assert [*image_features(store, folder)] == [f"{folder}/images-00001.safetensors"]

    (plan,) = (p for p in plan_run(store, request.settings()) if p.shard == "00000")
    monkeypatch.setattr(plans, "read_marker", lambda *_: None)  # it came while these were drawing
    late = ShardWorker(store, request.config, OtherGrain, features=config)
    late(plan)
    assert len(image_features(store, folder)) == 1
    ShardWorker(store, request.config, GrainySynthesizer, features=config)(plan)
    taken = image_features(store, folder)
    assert len(taken) == 2
    for key in taken:
        (tmp_path / key).unlink()
    extract_all(store, backbone)
    assert image_features(store, folder) == taken


def test_a_run_that_was_asked_for_more_is_not_finished(tmp_path, backbone, config):
    store, larger = Store(tmp_path), pets(20, FakeConfig())
    synthesize_locally(store, pets(4, FakeConfig()), LENIENT, factory=GrainySynthesizer)
    folder = extract_all(store, backbone)
    record_request(store, larger.captions.kept, [], 2, larger.images_per_shard)
    message = r"was asked for more, and \d shards of it are missing. Run jobs/synthesize.py again"
    with pytest.raises(FileNotFoundError, match=message):
        read_training_features(store, folder)
    synthesize_locally(store, larger, LENIENT, factory=GrainySynthesizer, features=config)
    assert {task.kind for task in feature_tasks(store, folder)} == {"texts"}


def test_features_without_a_marker_do_not_count(store, backbone):
    folder = extract_all(store, backbone)
    before, hashes = read_training_features(store, folder), read_hashes(store, folder)
    data = store.read(FeatureTask("images", "00001").key(folder))
    for shard in ("00000-retry1", "00003"):
        store.write(FeatureTask("images", shard).key(folder), data)
    assert feature_tasks(store, folder) == []
    after = read_training_features(store, folder)
    assert torch.equal(after.images.local_features, before.images.local_features)
    assert torch.equal(read_hashes(store, folder), hashes)


def test_an_accelerator_draws_or_looks(store, backbone, config, monkeypatch):
    """Never both at once; a CPU may do what it likes."""
    worker = ShardWorker(store, FakeConfig(), FakeSynthesizer, features=config)
    assert worker._extract.turn is not worker._device

    class OnAccelerator:
        device = torch.device("cuda")
        fingerprint = "0"
        embed_dim = 12

    monkeypatch.setattr("t2ipal.features.load_backbone", lambda config: OnAccelerator())
    worker = ShardWorker(store, FakeConfig(), FakeSynthesizer, features=config)

    def watched(backbone, images, labels):
        assert worker._device.locked()
        raise InterruptedError

    monkeypatch.setattr(extraction, "image_set", watched)
    with pytest.raises(InterruptedError):
        worker._extract(FeatureTask("images", "00002"))
    assert not worker._device.locked()


def test_finished_tasks_are_left_out(store, backbone):
    folder = feature_folder(backbone)
    tasks = feature_tasks(store, folder)
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
    assert feature_tasks(store, folder) == tasks[2:]
    with pytest.raises(FileNotFoundError, match=r"2 feature shards are missing .* Run jobs/train"):
        read_training_features(store, folder)
    assert len(feature_tasks(store, "features/of another backbone")) == 4


def test_a_run_without_images(store, backbone, monkeypatch):
    """Shards in which every sample has failed hold no feature."""
    rows = read_rows(store).to_pylist()
    failed = [{**row, "status": "failed"} for row in rows]

    class Rows:
        def to_pylist(self):
            return failed

    folder = extract_all(store, backbone)
    monkeypatch.setattr(extraction, "read_encoded_images", lambda store, shard: iter(()))
    arrays = FeatureExtractor(store, backbone)._images("00000")
    assert arrays["global_features"].shape == (0, backbone.embed_dim)
    monkeypatch.setattr(extraction, "read_rows", lambda store: Rows())
    features = read_training_features(store, folder)
    assert features.images is None
    assert features.image_of_caption.tolist() == [[-1]] * 7


def test_features_of_another_run_are_noticed(store, backbone):
    folder = extract_all(store, backbone)
    key = FeatureTask("images", "00001").key(folder)
    store.write(key, store.read(FeatureTask("images", "00000").key(folder)))
    with pytest.raises(ValueError, match=r"have 8 images, the run has 11\. Remove that folder"):
        read_training_features(store, folder)


def test_an_unfinished_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No manifest .* Run jobs/synthesize\.py first"):
        feature_tasks(Store(tmp_path), "features/x")


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


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK"])
def test_photographs_become_rgb(tmp_path, mode):
    image = Image.new("RGB", (50, 30), (200, 100, 0)).convert(mode)
    path = tmp_path / ("photograph.tif" if mode == "CMYK" else "photograph.png")
    image.save(path)
    seen = load_photograph(path, 20)
    assert seen.shape == (20, 20, 3) and seen.dtype == np.uint8
    assert (seen == seen[0, 0]).all()


def test_ray_computes_the_same_features(ray_session, store, backbone, config):
    from t2ipal.engine.extraction import extract_run

    folder = extract_run(store, config, num_workers=0)
    assert folder == feature_folder(backbone)
    alone = {key: read_arrays(store, key) for key in store.list(f"{folder}/")}
    assert len(alone) == 4
    shutil.rmtree(Path(store.uri) / folder)
    assert extract_run(store, config, num_workers=2) == folder
    assert store.list(f"{folder}/") == list(alone)
    for key, arrays in alone.items():
        ours = read_arrays(store, key)
        assert ours.keys() == arrays.keys()
        for name, values in arrays.items():
            np.testing.assert_allclose(ours[name], values, atol=1e-3)
    assert extract_run(store, config) == folder  # nothing is left to do


def test_workers_on_ray_store_features_too(ray_session, tmp_path, backbone, config):
    from t2ipal.engine.extraction import extract_run

    request, folder = pets(7, FakeConfig()), feature_folder(backbone)
    pooled, alone = Store(tmp_path / "pooled"), Store(tmp_path / "alone")
    workers = replace(LENIENT, min_workers=2)
    synthesize(pooled, request, workers, factory=GrainySynthesizer, features=config)
    assert len(image_features(pooled, folder)) == 3
    synthesize_locally(alone, request, LENIENT, factory=GrainySynthesizer)
    for store in (pooled, alone):  # with as many threads as a worker has
        assert extract_run(store, config, num_workers=1) == folder
    assert image_features(pooled, folder) == image_features(alone, folder)
    broken = replace(config, model=str(tmp_path))
    with pytest.raises(RuntimeError, match=r"A worker stopped: .* must hold open_clip_config.json"):
        synthesize(Store(tmp_path / "new"), request, factory=FakeSynthesizer, features=broken)
