import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_clip import VIT, write_tiny_clip
from voc_tree import voc_tree

from t2ipal.evaluation.reading import Unreadable
from t2ipal.evaluation.test_sets import is_own, load_test_set, see
from t2ipal.evaluation.test_sets import test_set_features as set_features
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.photographs import load_photograph
from t2ipal.pictovoc import worlds
from t2ipal.pictovoc.worlds import WORLDS


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
    photographs = [load_photograph(path.read_bytes(), 32) for path in paths]
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


NAMES = ("car", "dog")


@pytest.fixture
def own(tmp_path):
    """Two labelled photographs of the user's own."""
    rng = np.random.default_rng(1)
    for name in ("a.png", "b.png"):
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("file,labels\nb.png,dog\na.png,car;dog\n")
    return tmp_path


def test_photographs_of_the_users_own(backbone, own, monkeypatch):
    test = set_features(str(own), None, backbone, NAMES)
    assert (test.name, test.class_names, test.difficult) == (str(own), NAMES, None)
    assert test.features.labels.tolist() == [[0, 1], [1, 1]]
    seen = np.stack([load_photograph((own / n).read_bytes(), 32) for n in ("b.png", "a.png")])
    features = backbone.encode_images(torch.from_numpy(seen))
    assert_same(test.features.global_features, features.global_features)
    loaded = load_test_set(str(own), None, NAMES)
    assert f"labelled by {own}/labels.csv (columns file and labels)" in loaded.origin
    assert loaded.name == test.name and loaded.labels.tolist() == test.features.labels.tolist()
    monkeypatch.chdir(own.parent)
    for name in (own.name, f"./{own.name}", f"{own.name}/labels.csv"):
        again = set_features(name, None, backbone, NAMES)
        assert again.name == str(own / Path(name).relative_to(own.name))
        assert torch.equal(again.features.labels, test.features.labels)


def test_what_is_a_folder_of_the_users(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voc2007").mkdir()
    (tmp_path / "photos").mkdir()
    assert not is_own("voc2007") and not is_own("pictovoc") and not is_own("nothing_there")
    for name in ("photos", "./voc2007", "~/x", "a/b", "s3://bucket", "/data"):
        assert is_own(name), name


def test_a_folder_has_no_test_root(backbone, own):
    with pytest.raises(ValueError, match="is the test set: leave --test-root out"):
        set_features(str(own), str(own), backbone, NAMES)


def test_photographs_that_cannot_be_read_are_left_out(backbone, own, caplog):
    whole = set_features(str(own), None, backbone, NAMES)
    for name in ("c.png", "d.png"):
        (own / name).write_bytes((own / "a.png").read_bytes()[:300])
    (own / "d.png").write_bytes(b"")
    text = "file,labels\nc.png,car\nb.png,dog\nd.png,dog\na.png,car;dog\n"
    (own / "labels.csv").write_text(text)
    loaded = load_test_set(str(own), None, NAMES)
    test = see(loaded, backbone, max_unreadable_fraction=0.5)
    assert torch.equal(test.features.global_features, whole.features.global_features)
    assert test.features.labels.tolist() == whole.features.labels.tolist() == [[0, 1], [1, 1]]
    assert test.unreadable == (Unreadable("c.png", "truncated"), Unreadable("d.png", "empty file"))
    assert test.num_listed == 4 and len(test.previews) == 2
    said = f"2 of 4 photographs of the test set in {own} cannot be read and are left out: "
    assert said + "c.png (truncated), d.png (empty file)." in caplog.text
    message = rf"2 or more of 4 photographs of the test set in {own} cannot be read: c.png \(trunc"
    with pytest.raises(ValueError, match=message):
        see(loaded, backbone, max_unreadable_fraction=0.25)
    for name in ("a.png", "b.png"):
        (own / name).write_bytes(b"text")
    message = rf"None of 4 photographs of the test set in {own} can be read: c.png \(truncated\), b"
    with pytest.raises(ValueError, match=message):
        see(loaded, backbone)


def test_a_photograph_that_is_gone(backbone, own):
    loaded = load_test_set(str(own), None, NAMES)
    (own / "a.png").unlink()
    assert see(loaded, backbone).unreadable == (Unreadable("a.png", f"No file {own}/a.png."),)
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 2 images, first a.png"):
        set_features(str(own), None, backbone, NAMES)


def test_a_long_list_is_shortened(backbone, own, caplog):
    rows = [f"{number}.png,dog" for number in range(9)]
    for number in range(9):
        (own / f"{number}.png").write_bytes(b"")
    (own / "labels.csv").write_text("\n".join(["file,labels", "a.png,car", *rows]))
    assert len(set_features(str(own), None, backbone, NAMES).unreadable) == 9
    assert "3.png (empty file), 4.png (empty file) and 4 more." in caplog.text
