"""Views of labelled images: stored once, the same as those of each image alone."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_clip import VIT, write_tiny_clip

from t2ipal.evaluation import stored_sets
from t2ipal.evaluation.labelled_sets import labelled_features, only_labelled
from t2ipal.evaluation.protocols import few_shot_rows, known_from
from t2ipal.evaluation.stored_sets import in_process
from t2ipal.evaluation.test_sets import load_test_set
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig, FeatureAccess
from t2ipal.features.extraction import image_set
from t2ipal.features.photographs import load_photograph
from t2ipal.features.views import augmented
from t2ipal.pictovoc.worlds import WORLDS, train_scenes
from t2ipal.store import Store

NAMES = ("car", "dog")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = write_tiny_clip(tmp_path_factory.mktemp("clip"), VIT)
    return load_backbone(BackboneConfig(model=str(folder)))


@pytest.fixture
def scenes(monkeypatch):
    """Seven labelled train scenes, in parts of three."""
    monkeypatch.setattr(stored_sets, "IMAGES_PER_PART", 3)
    monkeypatch.setitem(
        WORLDS, "pictovoc_train", dataclasses.replace(WORLDS["pictovoc_train"], count=7)
    )
    return load_test_set("pictovoc_train")


def counting(computed, place, backbone, source, parts):
    computed.append(len(parts))
    return in_process(place, backbone, source, parts)


def assert_views(data, images, labels, backbone, seed):
    """Each stored view is that of its image."""
    number, views = data.image_of_caption.shape
    assert number == len(images) == len(data.texts)
    for view in range(views):
        seen = [augmented(image, seed, view) for image in images]
        expected = image_set(backbone, seen, torch.zeros(len(images), 1))
        rows = data.images.rows(data.image_of_caption[:, view])
        torch.testing.assert_close(
            rows.global_features, expected.global_features, rtol=2e-3, atol=1e-3
        )
        assert np.array_equal(rows.labels.numpy(), labels)
    plain = data.texts.column("global_features")
    assert torch.equal(plain, data.images.column("global_features", data.image_of_caption[:, 0]))


def test_scenes_in_a_folder_and_in_a_bucket(backbone, scenes, store):
    computed = []
    see = functools.partial(
        labelled_features, scenes, backbone, store, workers=functools.partial(counting, computed)
    )
    data = see(3, 5)
    images, labels = train_scenes(7)
    assert_views(data, images, labels, backbone, 5)
    again = see(3, 5, access=FeatureAccess(feature_memory_gb=0.0))
    assert computed == [9]  # the second time everything is there
    assert torch.equal(again.image_of_caption, data.image_of_caption)
    for table in ("texts", "images"):
        ours, theirs = (getattr(each, table).rows(slice(None)) for each in (data, again))
        assert torch.equal(ours.local_features, theirs.local_features)
        assert ours.known_from is None and theirs.known_from is None
    assert see(1, 7).image_of_caption.tolist() == [[row] for row in range(7)]
    assert see(4, 5).image_of_caption.shape == (7, 4)
    assert computed == [9, 3]  # one more view alone
    assert len(store.list(f"labelled_features/{backbone.fingerprint}/")) == len(store.list()) == 12


def test_labels_that_are_known(backbone, scenes, tmp_path):
    shares = known_from(7, 20)
    for access in (None, FeatureAccess(feature_memory_gb=0.0)):
        data = labelled_features(
            scenes, backbone, Store(tmp_path), 2, 0, known_from=shares, access=access
        )
        assert np.array_equal(data.texts.rows(slice(None)).known_from.numpy(), shares)
        for view in (0, 1):
            rows = data.images.rows(data.image_of_caption[:, view])
            assert np.array_equal(rows.known_from.numpy(), shares)
    with pytest.raises(ValueError, match=r"known_from must be of \(7, 20\) images and classes"):
        labelled_features(scenes, backbone, Store(tmp_path), 2, 0, known_from=shares[:3])
    with pytest.raises(ValueError, match="num_views must be > 0, got 0"):
        labelled_features(scenes, backbone, Store(tmp_path), 0, 0)


def test_a_few_of_them(backbone, scenes, tmp_path):
    data = labelled_features(scenes, backbone, Store(tmp_path), 2, 0)
    shown = scenes.labels[:, scenes.labels.sum(axis=0) > 0]
    rows = few_shot_rows(shown, 1, 0)
    few = only_labelled(data, rows)
    images, labels = train_scenes(7)
    assert_views(few, images[rows], labels[rows], backbone, 0)
    alone = labelled_features(scenes.only(rows.tolist()), backbone, Store(tmp_path), 2, 0)
    assert_views(alone, images[rows], labels[rows], backbone, 0)


def test_photographs_some_of_which_cannot_be_read(backbone, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(stored_sets, "IMAGES_PER_PART", 3)
    own, rng = tmp_path / "own", np.random.default_rng(0)
    own.mkdir()
    for number in range(5):
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(own / f"{number}.png")
    (own / "1.png").write_bytes(b"")
    lines = "".join(f"{n}.png,{NAMES[n % 2]}\n" for n in range(5))
    (own / "labels.csv").write_text("file,labels\n" + lines)
    photographs = load_test_set(str(own), None, NAMES)
    shares = known_from(5, 2)
    data = labelled_features(
        photographs, backbone, Store(tmp_path / "run"), 2, 3, known_from=shares
    )
    assert "1 of 5 photographs" in caplog.text
    kept = [0, 2, 3, 4]
    images = [load_photograph((own / f"{n}.png").read_bytes(), 32) for n in kept]
    assert_views(data, images, photographs.labels[kept], backbone, 3)
    rows = data.images.rows(data.image_of_caption[:, 1])
    assert np.array_equal(rows.known_from.numpy(), shares[kept])
