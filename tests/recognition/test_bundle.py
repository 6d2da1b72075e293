import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_recognizer import NAMES, write_recognizers
from tiny_clip import VIT, write_tiny_clip

from t2ipal.evaluation.evaluate import predict
from t2ipal.features.extraction import image_set
from t2ipal.recognition.bundle import (
    Whereabouts,
    check_same,
    load_bundle,
    load_bundles,
    mean_scores,
)
from t2ipal.store import Store

OLD = Path(__file__).parents[1] / "fixtures" / "stored" / "grown" / "train"


@pytest.fixture
def clip(tmp_path):
    return tmp_path / "clip"


def test_a_recognizer_finds_its_backbone(store, clip):
    write_recognizers(store, clip)
    bundle = load_bundle(store, "t2ipal-seed0")
    assert bundle.class_names == NAMES
    assert bundle.recognizer.backbone == bundle.backbone.identity
    assert bundle.backbone.config.model == str(clip)


def test_a_backbone_that_moved(store, clip, tmp_path):
    write_recognizers(store, clip)
    moved = clip.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=rf"t2ipal-seed0 is not at {clip}.* with --model"):
        load_bundle(store, "t2ipal-seed0")
    bundle = load_bundle(store, "t2ipal-seed0", Whereabouts(model=str(moved)))
    assert bundle.backbone.config.model == str(moved)
    other = write_tiny_clip(tmp_path / "other", VIT, seed=1)
    with pytest.raises(ValueError, match=r"other' here; fingerprint \w+ there, \w+ here"):
        load_bundle(store, "t2ipal-seed0", Whereabouts(model=str(other)))


def test_a_device_that_is_not_there(store, clip):
    write_recognizers(store, clip, 1)
    with pytest.raises(ValueError, match="device 'nonsense' cannot be used here"):
        load_bundle(store, "t2ipal-seed0", Whereabouts(device="nonsense"))


def test_recognizers_from_before_they_named_their_backbone(tmp_path):
    bundle = load_bundle(Store(OLD), "t2ipal-seed0")
    named = bundle.recognizer.backbone
    assert named is not None and named.fingerprint == bundle.backbone.fingerprint
    shutil.copytree(OLD / "t2ipal-seed0", tmp_path / "alone")
    (tmp_path / "alone" / "settings.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks the settings\.json that lay beside it"):
        load_bundle(Store(tmp_path), "alone")


def test_an_old_recognizer_of_another_backbone(tmp_path):
    shutil.copytree(OLD / "t2ipal-seed0", tmp_path / "old")
    settings = tmp_path / "old" / "settings.json"
    content = json.loads(settings.read_text())
    content["inputs"]["features"] = "features/0123456789abcdef"
    settings.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"fingerprint 0123456789abcdef there, \w+ here"):
        load_bundle(Store(tmp_path), "old")


def test_several_seeds_share_a_backbone(store, clip):
    write_recognizers(store, clip, 3)
    places = [(store, f"t2ipal-seed{seed}") for seed in range(3)]
    assert check_same(places) == NAMES
    bundles = load_bundles(places)
    assert all(bundle.backbone is bundles[0].backbone for bundle in bundles)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    features = image_set(bundles[0].backbone, images, torch.zeros(5, 4))
    alone = predict([bundle.recognizer for bundle in bundles], features)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    np.testing.assert_allclose(mean_scores(bundles, images), np.mean(alone, axis=0), atol=1e-6)


def test_those_that_do_not_belong_together(store, clip, tmp_path):
    write_recognizers(store, clip, 1)
    classes, backbone = Store(tmp_path / "classes"), Store(tmp_path / "backbone")
    write_recognizers(classes, clip, 1, NAMES[::-1])
    write_tiny_clip(tmp_path / "other", VIT, seed=1)
    write_recognizers(backbone, tmp_path / "other", 1)
    for other, what in ((classes, "classes"), (backbone, "backbone")):
        with pytest.raises(ValueError, match=f"must have the same {what}: .*{what}/t2ipal-seed0"):
            load_bundles([(store, "t2ipal-seed0"), (other, "t2ipal-seed0")])
    with pytest.raises(ValueError, match="There must be a recognizer"):
        check_same([])


def test_a_folder_of_recognizers_names_them(store, clip, tmp_path):
    above = Store(store.uri.rpartition("/")[0], store.endpoint_url)
    name = store.uri.rpartition("/")[2]
    write_recognizers(store, clip)
    with pytest.raises(FileNotFoundError, match=r"holds 2 recognizers .*seed0, .*seed1\.$"):
        load_bundle(above, name)
    with pytest.raises(FileNotFoundError, match=r"No recognizer in .*none\. Run jobs/train\.py"):
        load_bundle(store, "none")


def test_whereabouts_change_what_they_name_alone(clip):
    write_tiny_clip(clip, VIT)
    bundle_config = Whereabouts(device="meta").of
    from t2ipal.features.config import BackboneConfig

    config = BackboneConfig(model="RN50", precision="bf16")
    assert bundle_config(config) == dataclasses.replace(config, device="meta")
