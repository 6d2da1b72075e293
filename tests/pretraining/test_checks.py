from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_clip import write_tiny_clip
from torch.nn import functional

from t2ipal.captions import NounFilter, load_vocabulary
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.evaluation.metrics import average_precision, mean_average_precision, pointing_game
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.sets import TextFeatures
from t2ipal.pictovoc import WEIGHTS_DIR
from t2ipal.pictovoc.captions import world_captions
from t2ipal.pictovoc.scenes import CLASS_NAMES
from t2ipal.pictovoc.worlds import WORLDS, World, object_boxes, world_scenes
from t2ipal.pretraining import checks
from t2ipal.synthesis.rendering import RenderingSynthesizer


def test_names_are_the_vocabularys():
    vocabulary = load_vocabulary("voc2007")
    assert vocabulary.class_names == CLASS_NAMES
    assert vocabulary.prompt_names == checks.PROMPT_NAMES


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory):
    """A CLIP that was never trained."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_clip(folder / "clip")
    return folder


@pytest.fixture(scope="module")
def backbone(models_dir):
    return load_backbone(BackboneConfig(model=str(models_dir / "clip")))


def test_zero_shot_scores(backbone):
    images = checks.scene_features(backbone, checks.test_scenes(4))
    scores = checks.zero_shot_scores(backbone, images)
    text = backbone.encode_texts(["a photo of a tv monitor."]).global_features[0]
    assert scores.shape == (4, 20)
    assert scores[2, 19] == pytest.approx(float(images.pooled_features[2] @ text), abs=1e-5)


def test_check_clip(backbone, models_dir, monkeypatch):
    """All that it says of the CLIP, on 150 scenes, put together anew."""
    monkeypatch.setattr(checks, "TEST_SCENES", 150)
    monkeypatch.setitem(WORLDS, "pictovoc", World(count=150))
    monkeypatch.setitem(WORLDS, "pictovoc_shifted", World(domain="shifted", count=150))
    known = World("validation", first=500_000, count=200)
    monkeypatch.setitem(WORLDS, "pictovoc_validation", known)
    result = checks.check_clip(models_dir)
    prompts = checks.class_prompts(backbone)
    looks = {}
    for name in ("pictovoc", "pictovoc_shifted"):
        images, labels = world_scenes(name, 150)
        seen = backbone.encode_images(torch.from_numpy(images))
        scores = (seen.pooled_features @ prompts.T).numpy()
        looks[name] = seen, scores, mean_average_precision(scores, labels)
    seen, scores, score = looks["pictovoc"]
    labels = world_scenes("pictovoc", 150)[1]
    pointing = []
    for size in (None, checks.FINER_PX):
        looking = load_backbone(replace(backbone.config, local_image_size_px=size))
        places, others = (
            looking.encode_images(torch.from_numpy(world_scenes(name)[0])).local_features.numpy()
            for name in ("pictovoc", "pictovoc_validation")
        )
        covariance = np.cov(others.reshape(-1, others.shape[2]), rowvar=False)
        covariance += 4 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        own = (prompts - prompts.mean(dim=0)).numpy() @ np.linalg.inv(covariance)
        heatmaps = np.einsum("nld,cd->ncl", places, own)
        side = round(heatmaps.shape[2] ** 0.5)
        pointing.append(pointing_game(heatmaps, object_boxes(150), side))
    assert side > 2
    pointing, finer = pointing
    captions = [text for _, text in world_captions("test", 150)]
    texts = backbone.encode_texts(captions).global_features
    assert result == pytest.approx(
        {
            "zero_shot_mAP": score,
            "worst_class_AP": average_precision(scores, labels).min(),
            "cosine_of_pairs": float((seen.pooled_features * texts).sum(dim=1).mean()),
            "cosine_of_prompts": float(scores[labels > 0].mean()),
            "zero_shot_mAP_shifted": looks["pictovoc_shifted"][2],
            "pointing_game": pointing.accuracy,
            "pointing_game_chance": pointing.chance,
            "pointing_game_ceiling": pointing.ceiling,
            "pointing_game_finer": finer.accuracy,
            "pointing_game_finer_chance": finer.chance,
        },
        rel=1e-3,
    )


def test_discriminants_look_away_from_what_places_differ_in_anyhow():
    generator = torch.Generator().manual_seed(0)
    clutter = torch.tensor([[0.0, 0.0, 1.0]])  # most places differ in it, whatever they show
    places = 0.1 * torch.randn(50, 9, 3, generator=generator)
    places += torch.randn(50, 9, 1, generator=generator) * clutter
    embeddings = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]])
    plain = embeddings - embeddings.mean(dim=0)
    found = checks.discriminants(embeddings, places, shrinkage=0.01)
    aligned = functional.normalize(torch.stack([plain[0], found[0]]), dim=1) @ clutter[0]
    assert aligned[0] > 0.3 and aligned[1] < 0.02
    assert found.sum(dim=0).abs().max() < 1e-4
    # So much is added that the covariance does not matter any more: what is left is the mean.
    even = functional.normalize(checks.discriminants(embeddings, places, shrinkage=1e6), dim=1)
    assert torch.allclose(even, functional.normalize(plain, dim=1), atol=1e-3)


def test_caption_map_of_a_clip_that_reads():
    """Texts as bags of words: a caption is nearest to the prompts whose nouns it says."""

    class Reader:
        def encode_texts(self, texts):
            names = checks.PROMPT_NAMES
            rows = torch.tensor([[float(name in text) for name in names] for text in texts])
            rows = functional.normalize(rows, dim=1)
            return TextFeatures(rows, rows[:, None], torch.ones(len(texts), 1, dtype=torch.bool))

    names = checks.PROMPT_NAMES
    pairs = [(first, (first + 1) % 20) for first in range(20)]
    captions = [f"a {names[first]} near a {names[second]}" for first, second in pairs]
    assert checks.caption_mAP(Reader(), captions, pairs) == pytest.approx(100)
    # One pair further on, each caption is labelled with one noun that it says and one that not.
    shifted = [pairs[(at + 1) % 20] for at in range(20)]
    assert 30 < checks.caption_mAP(Reader(), captions, shifted) < 70
    with pytest.raises(ValueError, match="got none of: tvmonitor"):
        checks.caption_mAP(Reader(), captions[:18], pairs[:18])


def test_check_diffusion():
    """A few images of what ships: most is planned and found, little by chance."""
    config = SynthesisConfig(
        pipeline=str(WEIGHTS_DIR / "stable-diffusion"), num_inference_steps=10, batch_size=16
    )
    measured = checks.check_diffusion(WEIGHTS_DIR, config, count=40)
    assert 0.7 < measured["planned"] < 0.9 and 0.6 < measured["named_found"] < 0.8
    assert measured["named_found_single"] > 0.9 and measured["chance"] < 0.2


def test_check_real_captions(models_dir, tmp_path, backbone):
    names = checks.PROMPT_NAMES
    texts = [f"A {first} beside a {second}." for first in names for second in names[::7]]
    path = tmp_path / "captions.txt"
    path.write_text("\n".join(["Nothing at all.", *texts]))
    found = checks.check_real_captions(models_dir, path)
    verdict = NounFilter(load_vocabulary("voc2007"))
    labels = [verdict(text).labels for text in texts]
    assert found["caption_mAP"] == pytest.approx(checks.caption_mAP(backbone, texts, labels))
    assert found["caption_chance"] == pytest.approx(100 * sum(map(len, labels)) / (60 * 20))
    assert found["num_captions"] == 60

    own = [text for _, text in world_captions("test", 150) if verdict(text).labels]
    labels = [verdict(text).labels for text in own]
    found = checks.check_real_captions(models_dir, path, count=150)
    assert found["world_caption_mAP"] == pytest.approx(checks.caption_mAP(backbone, own, labels))
    share = sum(map(len, labels)) / (len(own) * 20)
    assert found["world_caption_chance"] == pytest.approx(100 * share)
    assert found["world_num_captions"] == len(own)


def test_rendering_draws_what_a_caption_names():
    render = RenderingSynthesizer(SynthesisConfig(seed=4))
    batch = {
        "caption_id": np.array(["a", "b", "a"]),
        "caption": np.array(["a dog on a boat", "a red house", "a dog on a boat"]),
        "k": np.array([0, 0, 1]),
    }
    made, again = render(batch), render(batch)
    assert made["status"].tolist() == ["ok", "failed", "ok"]
    assert made["reason"][1] == "names no class of the world"
    assert made["image"].shape == (3, 64, 64, 3) and made["image"].dtype == np.uint8
    assert np.array_equal(made["image"], again["image"])
    assert not np.array_equal(made["image"][0], made["image"][2])
    assert len(set(made["seed"].tolist())) == 3
