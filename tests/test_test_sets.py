import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_benchmarks import voc_tree
from tiny_clip import VIT, write_tiny_clip

from t2ipal.extraction import load_photograph
from t2ipal.features import BackboneConfig, load_backbone
from t2ipal.pictovoc import worlds
from t2ipal.pictovoc.worlds import WORLDS
from t2ipal.test_sets import test_set_features as set_features


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = write_tiny_clip(tmp_path_factory.mktemp("clip"), VIT)
    return load_backbone(BackboneConfig(model=str(folder)))


def assert_same(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WORLDS)
def test_the_worlds_scenes(backbone, monkeypatch, name):
    monkeypatch.setitem(WORLDS, name, dataclasses.replace(WORLDS[name], count=5))
    scenes = worlds.world_scenes(name)
    test = set_features(name, None, backbone, num_previews=3)
    assert (test.name, test.class_names) == (name, WORLDS[name].class_names)
    assert test.difficult is None
    images, labels = scenes
    assert np.array_equal(test.features.labels.numpy(), labels)
    seen = backbone.encode_images(torch.from_numpy(images))
    assert_same(test.features.global_features, seen.global_features)
    assert len(test.previews) == 3 and np.array_equal(test.previews[2], images[2])


@pytest.fixture
def voc(tmp_path):
    """Three photographs of different sizes in VOC2007's folders."""
    folder = voc_tree(tmp_path)
    rng = np.random.default_rng(0)
    for path, size in zip(
        sorted((folder / "JPEGImages").iterdir()), ((40, 60), (33, 32), (90, 50))
    ):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return tmp_path


def test_photographs(backbone, voc):
    test = set_features("voc2007", str(voc), backbone, num_previews=2)
    paths = sorted((voc / "VOC2007" / "JPEGImages").iterdir())
    photographs = [load_photograph(path, 32) for path in paths]
    seen = backbone.encode_images(torch.from_numpy(np.stack(photographs)))
    assert_same(test.features.global_features, seen.global_features)
    assert_same(test.features.local_features, seen.local_features)
    assert_same(test.features.pooled_features, seen.pooled_features)
    named = [[test.class_names[i] for i in row.nonzero().flatten()] for row in test.features.labels]
    assert named == [["dog", "person"], [], []] or named == [["person", "dog"], [], []]
    assert test.difficult.dtype == bool
    assert [(r, test.class_names[c]) for r, c in np.argwhere(test.difficult)] == [(1, "car")]
    assert len(test.previews) == 2 and np.array_equal(test.previews[1], photographs[1])


def test_without_difficult_entries(backbone, voc):
    path = voc / "VOC2007" / "Annotations" / "000002.xml"
    path.write_text(path.read_text().replace("<difficult>1", "<difficult>0"))
    assert set_features("voc2007", str(voc), backbone).difficult is None


def test_bad_names_and_folders(backbone, voc):
    with pytest.raises(ValueError, match="voc2007 needs its folder: give --test-root"):
        set_features("voc2007", None, backbone)
    with pytest.raises(ValueError, match=r"Unknown test set 'voc2012'\. Did you mean 'voc2007'"):
        set_features("voc2012", str(voc), backbone)
    with pytest.raises(ValueError, match=r"Did you mean 'pictovoc_shifted'"):
        set_features("pictovoc_shift", None, backbone)
    shutil.rmtree(Path(voc) / "VOC2007" / "JPEGImages")
    with pytest.raises(FileNotFoundError, match="000001"):
        set_features("voc2007", str(voc), backbone)
