import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_clip import VIT, write_tiny_clip

from t2ipal import extraction
from t2ipal.captions import FilterResult, LabelledCaption, RejectedCaption, Vocabulary
from t2ipal.config import added
from t2ipal.engine.pool import RunConfig
from t2ipal.engine.synthesis import SynthesisRequest, synthesize_locally
from t2ipal.extraction import (
    FeatureExtractor,
    FeatureTask,
    batched,
    feature_folder,
    feature_tasks,
    image_set,
    load_photograph,
    multi_hot,
    read_training_features,
    text_set,
)
from t2ipal.features import BackboneConfig, load_backbone
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


@dataclass(frozen=True)
class FakeConfig:
    images_per_caption: int = 2
    batch_size: int = 3
    jpeg_quality: int = 90
    image_format: str = added("jpeg")
    jpeg_subsampling: str = added("4:2:0")


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


def synthesize_pets(store, count, images_per_caption=2, retry_failed=False):
    """Makes images of the first captions, in shards of six images at most."""
    pairs = zip(TEXTS[:count], LABELS)
    captions = [LabelledCaption(f"id {i}", *pair) for i, pair in enumerate(pairs)]
    request = SynthesisRequest(
        FakeConfig(images_per_caption),
        Vocabulary("pets", ("dog", "cat"), ("dog", "cat"), ((), ())),
        FilterResult(captions, [RejectedCaption("x", "a house", "no class")]),
        images_per_shard=6,
    )
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
    monkeypatch.setattr(extraction, "read_images", lambda store, shard: iter(()))
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
