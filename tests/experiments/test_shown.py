import dataclasses

import fake_clip
import pytest
import torch
from small_run import write_random_judge, write_small_run

from t2ipal.experiments import shown
from t2ipal.pictovoc.judge import NAMED_THRESHOLD, load_judge
from t2ipal.store import Store, read_images, read_manifest


def test_what_the_judge_finds(tmp_path, monkeypatch):
    write_random_judge(tmp_path)
    monkeypatch.setattr(shown, "WEIGHTS_DIR", tmp_path)
    write_small_run(tmp_path / "run")
    store, judge = Store(tmp_path / "run"), load_judge(tmp_path / "judge")
    samples, found = shown.judged(store)
    pairs = [p for marker in read_manifest(store).shards for p in read_images(store, marker.shard)]
    assert [sample.key for sample in samples] == [sample.key for sample, _ in pairs]
    for row, (_, image) in zip(found, pairs, strict=True):
        assert row.tolist() == (judge.probs(image[None])[0] > NAMED_THRESHOLD).tolist()


def test_variance_within_captions():
    """Captions at x = -1 and 1, their two images at y = -0.5 and 0.5; a third lacks one image."""
    data = fake_clip.training_features(3, k=2)
    assert data.images is not None
    places = torch.tensor([[-1, -0.5], [-1, 0.5], [1, -0.5], [1, 0.5], [9, 9]])
    images = dataclasses.replace(data.images, global_features=places)
    rows = torch.tensor([[0, 1], [2, 3], [4, -1]])
    data = dataclasses.replace(data, images=images, image_of_caption=rows)
    within, whole = 2 * 0.25 / (2 - 1), 4 * 1.25 / (4 - 1)
    assert shown.variance_within(data, 2) == pytest.approx(within / whole)
