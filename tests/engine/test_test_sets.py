"""Features by a pool of Ray's actors, views of images included: those that one process computes."""

from types import SimpleNamespace

import pytest
import torch
from small_recognizer import write_photographs
from tiny_clip import VIT, write_tiny_clip

from t2ipal.engine.test_sets import on_ray
from t2ipal.evaluation import stored_sets
from t2ipal.evaluation.labelled_sets import labelled_features
from t2ipal.evaluation.stored_sets import set_parts
from t2ipal.evaluation.test_sets import load_test_set
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.pools import PoolConfig
from t2ipal.store import Store


def test_the_same_features_on_ray(ray_session, tmp_path, monkeypatch):
    monkeypatch.setattr(stored_sets, "IMAGES_PER_PART", 4)
    photos = tmp_path / "photos"
    write_photographs(Store(photos), 11)
    rows = "".join(f"{at}.png,{'dog' if at % 2 else 'car'}\n" for at in range(11))
    (photos / "labels.csv").write_text(f"file,labels\n{rows}")
    test = load_test_set(str(photos), None, ("car", "dog"))
    backbone = load_backbone(BackboneConfig(model=str(write_tiny_clip(tmp_path / "clip", VIT))))
    alone, ray = Store(tmp_path / "alone"), Store(tmp_path / "ray")
    expected = labelled_features(test, backbone, alone, 2, 0).images.rows(slice(None))

    def two_workers(*arguments):
        return on_ray(*arguments, PoolConfig(min_workers=2))

    views = labelled_features(test, backbone, ray, 2, 0, two_workers)
    assert views.image_of_caption.shape == (11, 2)
    seen = views.images.rows(slice(None))
    for name in ("global_features", "local_features", "pooled_features", "labels"):
        torch.testing.assert_close(getattr(seen, name), getattr(expected, name), rtol=0, atol=1e-3)
    assert ray.list() == alone.list() and len(ray.list()) == 6  # plain parts, and as many augmented
    lost = SimpleNamespace(config=BackboneConfig(model=str(tmp_path / "nowhere")))
    parts = set_parts(test, backbone)
    with pytest.raises(RuntimeError, match=r"A worker stopped: .*nowhere"):
        list(on_ray(Store(tmp_path / "lost"), lost, test.images.store, parts))
