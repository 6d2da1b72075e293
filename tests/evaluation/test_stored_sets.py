"""Features of a test set: computed once, part by part, the same as of the images as they are."""

import dataclasses
import os

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_clip import VIT, write_tiny_clip

from t2ipal.evaluation import stored_sets
from t2ipal.evaluation.reading import Unreadable
from t2ipal.evaluation.stored_sets import PartExtractor, feature_place, set_parts, stored_features
from t2ipal.evaluation.test_sets import load_test_set, see
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig, FeatureAccess
from t2ipal.pictovoc.worlds import WORLDS
from t2ipal.store import Store

NAMES = ("car", "dog")
MAPPED = FeatureAccess(feature_memory_gb=0.0)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = write_tiny_clip(tmp_path_factory.mktemp("clip"), VIT)
    return load_backbone(BackboneConfig(model=str(folder)))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Seven photographs, in parts of three."""
    monkeypatch.setattr(stored_sets, "IMAGES_PER_PART", 3)
    monkeypatch.setattr(stored_sets, "BATCH_SIZE", 2)
    folder, rng = tmp_path / "own", np.random.default_rng(0)
    folder.mkdir()
    for number in range(7):
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    rows = "".join(f"{n}.png,{NAMES[n % 2]}\n" for n in range(7))
    (folder / "labels.csv").write_text("file,labels\n" + rows)
    return folder


def counting(computed):
    def workers(place, backbone, source, parts):
        computed.append(len(parts))
        return stored_sets.in_process(place, backbone, source, parts)

    return workers


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=1e-3)


def test_photographs(backbone, own, store):
    test, computed = load_test_set(str(own), None, NAMES), []
    whole = see(test, backbone).features
    for access in (None, MAPPED):
        seen = stored_features(test, backbone, store, workers=counting(computed), access=access)
        assert (seen.name, seen.class_names, seen.num_listed) == (str(own), NAMES, 7)
        assert seen.difficult is None and seen.previews == [] and seen.unreadable == ()
        rows = seen.features.rows(slice(None))
        for name in ("global_features", "local_features", "pooled_features", "labels"):
            assert_close(getattr(rows, name), getattr(whole, name))
    assert computed == [3]  # the second time nothing is left to do
    assert len(store.list(f"test_features/{backbone.fingerprint}/")) == 3


def test_a_photograph_that_changed_is_seen_again(backbone, own, tmp_path):
    store, computed = Store(tmp_path / "run"), []

    def seen():
        test = load_test_set(str(own), None, NAMES)
        return stored_features(test, backbone, store, workers=counting(computed))

    before = seen()
    Image.fromarray(np.zeros((60, 60, 3), np.uint8)).save(own / "4.png")
    after = seen()
    assert computed == [3, 1]
    ours, theirs = (each.features.column("global_features") for each in (before, after))
    assert (ours != theirs).any(dim=1).tolist() == [n == 4 for n in range(7)]


def test_photographs_that_cannot_be_read(backbone, own, tmp_path, caplog):
    store, computed = Store(tmp_path / "run"), []
    (own / "1.png").write_bytes(b"")
    (own / "5.png").write_bytes((own / "5.png").read_bytes()[:300])
    test = load_test_set(str(own), None, NAMES)
    left_out = (Unreadable("1.png", "empty file"), Unreadable("5.png", "truncated"))
    for _ in range(2):  # the second time they are known
        seen = stored_features(test, backbone, store, workers=counting(computed))
        assert seen.unreadable == left_out and seen.num_listed == 7 and len(seen.features) == 5
        assert seen.features.labels.tolist() == [[n % 2 == 0, n % 2 == 1] for n in (0, 2, 3, 4, 6)]
        assert "2 of 7 photographs" in caplog.text
        caplog.clear()
    assert computed == [3]
    with pytest.raises(ValueError, match="2 or more of 7 photographs of the test set in"):
        stored_features(test, backbone, store, max_unreadable_fraction=0.2)
    for number in range(7):
        (own / f"{number}.png").write_bytes(b"text")
    with pytest.raises(ValueError, match="None of 7 photographs of the test set in"):
        stored_features(load_test_set(str(own), None, NAMES), backbone, store)


def test_a_photograph_that_is_gone_is_looked_for_again(backbone, own, tmp_path):
    store, computed = Store(tmp_path / "run"), []
    test = load_test_set(str(own), None, NAMES)
    os.rename(own / "2.png", tmp_path / "2.png")
    seen = stored_features(test, backbone, store, workers=counting(computed))
    assert seen.unreadable == (Unreadable("2.png", f"No file {own}/2.png."),)
    os.rename(tmp_path / "2.png", own / "2.png")
    again = stored_features(test, backbone, store, workers=counting(computed))
    assert again.unreadable == () and len(again.features) == 7 and computed == [3, 1]


def test_a_killed_evaluation_goes_on(backbone, own, tmp_path):
    store, test = Store(tmp_path / "run"), load_test_set(str(own), None, NAMES)
    first = set_parts(test, backbone)[0]
    assert PartExtractor(store, backbone, test.images.store)(first) == 3
    computed = []
    assert len(stored_features(test, backbone, store, workers=counting(computed)).features) == 7
    assert computed == [2]


def test_scenes_of_the_world(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(stored_sets, "IMAGES_PER_PART", 3)
    monkeypatch.setitem(WORLDS, "pictovoc", dataclasses.replace(WORLDS["pictovoc"], count=5))
    test, store = load_test_set("pictovoc"), Store(tmp_path)
    seen, whole = stored_features(test, backbone, store), see(test, backbone)
    assert_close(seen.features.column("global_features"), whole.features.global_features)
    assert torch.equal(seen.features.rows(slice(None)).labels, whole.features.labels)
    monkeypatch.setitem(WORLDS, "pictovoc", dataclasses.replace(WORLDS["pictovoc"], count=4))
    assert len(stored_features(load_test_set("pictovoc"), backbone, store).features) == 4
    assert len(store.list("test_features/")) == 3  # the first part was there


def test_in_8_bits(backbone, own, tmp_path):
    test = load_test_set(str(own), None, NAMES)
    config = dataclasses.replace(backbone.config, feature_format="int8")
    small = load_backbone(config)
    seen = stored_features(test, small, Store(tmp_path / "run"), access=MAPPED)
    whole = see(test, backbone).features
    torch.testing.assert_close(
        seen.features.rows(slice(None)).local_features, whole.local_features, rtol=0, atol=4e-3
    )


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    locked, free = Store(tmp_path / "file" / "run"), Store(tmp_path / "free")
    with feature_place(locked, free) as (place, is_kept):
        assert place is free and is_kept
    with pytest.raises(PermissionError, match="of somebody else"), feature_place(free):
        raise PermissionError("of somebody else")
    with feature_place(locked, locked) as (place, is_kept):
        assert not is_kept
        place.write("x", b"")
        folder = place.uri
    assert not os.path.exists(folder)
