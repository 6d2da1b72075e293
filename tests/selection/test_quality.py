import dataclasses

import fake_clip
import numpy as np
import pytest
import torch
from PIL import Image

from t2ipal.features.hashing import perceptual_hash
from t2ipal.features.sets import TrainingFeatures, only_images
from t2ipal.selection.choosing import ChoiceConfig, kept_images
from t2ipal.selection.quality import (
    ImageQuality,
    QualityConfig,
    caption_of_image,
    find_classes,
    measure_quality,
)
from t2ipal.selection.repairing import lacking_images
from t2ipal.training.loop import TrainingConfig, usable_images

NAMES = fake_clip.FakeClip().encode_text([f"a photo of a {n}." for n in fake_clip.PROMPT_NAMES])


def data_with_images(num=60, noise=0.3):
    """One image a caption; the class of every fourth one is nowhere to be seen."""
    images = fake_clip.images(num, noise=noise)
    one = torch.eye(len(fake_clip.NAMES))[torch.arange(num) % len(fake_clip.NAMES)]
    local = fake_clip.unit(num, 9, fake_clip.WIDTH, seed=3) * noise
    directions = NAMES - NAMES.mean(dim=0)
    shown = torch.arange(num) % 4 != 0
    for row in shown.nonzero().flatten().tolist():
        local[row, row % 9] += torch.nn.functional.normalize(directions[row % 5], dim=0)
    local = torch.nn.functional.normalize(local, dim=-1)
    pooled = torch.nn.functional.normalize(local.mean(dim=1), dim=-1)
    images = dataclasses.replace(
        images, local_features=local, pooled_features=pooled, labels=one, global_features=pooled
    )
    texts = dataclasses.replace(fake_clip.texts(num), labels=one)
    return TrainingFeatures(texts, images, torch.arange(num)[:, None]), shown


def test_heatmaps_find_what_is_there_and_miss_what_is_not():
    data, shown = data_with_images()
    quality = measure_quality(data, NAMES, torch.arange(len(shown)))
    assert quality.found_share[shown].mean() > 0.9
    assert quality.found_share[~shown].mean() < 0.3
    assert torch.equal(quality.named, data.images.labels > 0)
    assert not (quality.found & ~quality.named).any()
    expected = (data.images.pooled_features * data.texts.global_features).sum(dim=1)
    torch.testing.assert_close(quality.similarity, expected)


def test_the_threshold_is_a_share_of_false_alarms():
    images, _ = data_with_images(400)
    for share in (0.05, 0.3):
        found = find_classes(images.images, NAMES, share)
        alarms = found[images.images.labels == 0].float().mean()
        assert alarms == pytest.approx(share, abs=0.02)


def test_a_class_that_every_image_names_is_found():
    data, _ = data_with_images(5)
    images = dataclasses.replace(data.images, labels=torch.ones(5, 5))
    assert find_classes(images, NAMES, 0.1).all()


def test_captions_of_images():
    data = fake_clip.training_features(20, k=2)
    caption = caption_of_image(data)
    for row, images in enumerate(data.image_of_caption.tolist()):
        for image in images:
            assert image < 0 or caption[image] == row


def test_twins_look_the_same_and_name_the_same():
    data, _ = data_with_images(20)
    features = data.images
    for name in ("pooled_features", "labels"):
        column = getattr(features, name).clone()
        column[10] = column[5]
        column[15] = column[5]
        features = dataclasses.replace(features, **{name: column})
    data = TrainingFeatures(data.texts, features, data.image_of_caption)
    hashes = torch.arange(20) << 20
    hashes[10] = hashes[5] ^ 0b111  # three bits away
    hashes[15] = hashes[5] ^ (0b111111 << 30)  # six bits away
    quality = measure_quality(data, NAMES, hashes)
    assert quality.twin[10] == 5 and quality.twin[15] == -1
    assert (quality.twin >= 0).sum() == 1
    loose = measure_quality(data, NAMES, hashes, QualityConfig(twin_bits=6))
    assert loose.twin[15] == 5
    other = data.images.labels.clone()
    other[10] = 1 - other[10]
    apart = dataclasses.replace(data.images, labels=other)
    quality = measure_quality(
        TrainingFeatures(data.texts, apart, data.image_of_caption), NAMES, hashes
    )
    assert (quality.twin < 0).all()


def test_hashes_survive_scaling_and_jpeg(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (7, 9, 3), dtype=np.uint8)) for _ in range(6)]
    large = [picture.resize((256, 256), Image.Resampling.BICUBIC) for picture in pictures]
    for number, picture in enumerate(large):
        picture.resize((128, 128)).save(tmp_path / f"{number}.jpg", quality=60)
    small = [Image.open(tmp_path / f"{number}.jpg") for number in range(6)]

    def hashes(images):
        return perceptual_hash(torch.from_numpy(np.stack([np.array(i) for i in images]))).tolist()

    differing = [[(a ^ b).bit_count() for b in hashes(small)] for a in hashes(large)]
    for row, bits in enumerate(differing):
        assert bits[row] <= 4 and min(bits[:row] + bits[row + 1 :]) > 10
    assert all(0 <= value < 2**56 for value in hashes(large))


def quality_of(rows):
    """(caption, similarity, named, found, twin) of each image."""
    captions, similarity, named, found, twin = zip(*rows)
    classes = torch.arange(4)
    return ImageQuality(
        torch.tensor(captions),
        torch.tensor(similarity),
        classes < torch.tensor(named)[:, None],
        classes < torch.tensor(found)[:, None],
        torch.tensor(twin),
    )


QUALITY = quality_of(
    [
        (0, 0.30, 2, 2, -1),
        (0, 0.35, 2, 1, -1),
        (0, 0.20, 2, 2, 0),
        (1, 0.10, 1, 0, -1),
        (1, 0.15, 1, 0, -1),
        (2, 0.50, 0, 0, -1),
    ]
)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"min_found": 0.0}, [0, 1, 2, 3, 4, 5]),
        ({}, [0, 1, 2, 5]),
        ({"min_found": 1.0}, [0, 2, 5]),
        ({"min_found": 0.0, "min_similarity": 0.2}, [0, 1, 2, 5]),
        ({"min_found": 0.0, "keep_twins": False}, [0, 1, 3, 4, 5]),
        ({"min_found": 0.0, "best": 1}, [0, 4, 5]),
        ({"min_found": 0.0, "best": 2}, [0, 2, 3, 4, 5]),
        ({"min_found": 0.0, "best": 2, "keep_twins": False}, [0, 1, 3, 4, 5]),
        ({"best": 1}, [0, 5]),
    ],
)
def test_choices(changes, kept):
    assert kept_images(QUALITY, ChoiceConfig(**changes)).nonzero().flatten().tolist() == kept


TWINS = quality_of(
    [
        (0, 0.10, 2, 0, -1),
        (1, 0.30, 2, 1, 0),
        (2, 0.20, 2, 2, 0),
        (2, 0.40, 2, 2, 1),
        (3, 0.50, 2, 2, -1),
    ]
)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"min_found": 0.0}, [0, 3, 4]),
        ({}, [1, 4]),  # the first one is not kept: it takes no other with it, but they are alike
        ({"min_found": 1.0}, [2, 3, 4]),
        ({"best": 1}, [3, 4]),  # the better one of two twins stays
    ],
)
def test_twins_are_dropped_among_the_kept_alone(changes, kept):
    choice = ChoiceConfig(keep_twins=False, **changes)
    assert kept_images(TWINS, choice).nonzero().flatten().tolist() == kept


@pytest.mark.parametrize(
    ("arguments", "lacking"),
    [
        ((2, 1.0), {1: 2, 2: 1}),
        ((2, 0.5), {1: 2, 2: 1}),
        ((3, 0.5), {1: 3, 2: 2}),
        ((4, 0.5), {1: 4, 2: 3, 0: 1}),
        ((1, 0.0), {}),
        ((4, 0.5, 6), {1: 4, 2: 2}),
        ((4, 0.5, 0), {}),
    ],
)
def test_what_captions_lack(arguments, lacking):
    assert lacking_images(QUALITY, 3, *arguments) == lacking


def test_captions_without_an_image_lack_all():
    assert lacking_images(QUALITY, 5, 2, 1.0) == {1: 2, 3: 2, 4: 2, 2: 1}
    assert lacking_images(QUALITY, 5, 2, 1.0, budget=5) == {1: 2, 3: 2, 4: 1}


def test_the_share_of_classes_found_comes_before_the_cosine():
    quality = quality_of([(0, 0.95, 4, 2, -1), (0, 0.10, 4, 3, -1), (0, 0.20, 4, 3, -1)])
    kept = kept_images(quality, ChoiceConfig(min_found=0.0, best=2))
    assert kept.tolist() == [False, True, True]
    assert kept_images(quality, ChoiceConfig(best=1)).tolist() == [False, False, True]


def test_only_the_chosen_images_are_drawn():
    data = fake_clip.training_features(20, k=3)
    keep = torch.arange(len(data.images)) % 3 > 0
    chosen = only_images(data, keep)
    rows = usable_images(chosen, TrainingConfig())
    drawn = data.image_of_caption.flatten().tolist()
    assert sorted(rows[rows >= 0].tolist()) == sorted(r for r in drawn if r >= 0 and r % 3)
    assert len(chosen.images) == len(data.images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QualityConfig(false_alarms=0), "false_alarms must be between 0 and 1, got 0"),
        (lambda: QualityConfig(twin_bits=57), "twin_bits must be in 0..56, got 57"),
        (lambda: QualityConfig(twin_cosine=2), "twin_cosine must be in -1..1, got 2"),
        (lambda: lacking_images(QUALITY, 3, 1, 2.0), "min_found must be in 0..1, got 2"),
        (lambda: lacking_images(QUALITY, 3, 1, 1.0, -1), "budget must be >= 0, got -1"),
        (lambda: ChoiceConfig(best=0), "best must be > 0, got 0"),
        (lambda: ChoiceConfig(min_found=1.5), "min_found must be in 0..1, got 1.5"),
        (lambda: ChoiceConfig(min_similarity=-2), "min_similarity must be in -1..1, got -2"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_quality_needs_images():
    data, _ = data_with_images(5)
    with pytest.raises(ValueError, match="measured on images, got none"):
        measure_quality(TrainingFeatures(data.texts, None, data.image_of_caption), NAMES, NAMES)
