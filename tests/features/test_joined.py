import dataclasses

import pytest
import torch

from t2ipal.features.joined import JoinedTables, join_captions, join_images, relabelled
from t2ipal.features.sets import FeatureSet, TrainingFeatures


def features(rows, start, positions=None, classes=3):
    """Rows whose numbers tell which row they are."""
    numbers = torch.arange(start, start + rows, dtype=torch.float32)
    locations = positions or 2
    return FeatureSet(
        numbers.unsqueeze(1).expand(-1, 4),
        numbers.view(-1, 1, 1).expand(-1, locations, 4),
        None if positions is None else torch.ones(rows, positions, dtype=torch.bool),
        torch.nn.functional.one_hot(torch.arange(rows) % classes, classes).float(),
    )


def source(captions, images, start, positions):
    """Captions with two images each."""
    return TrainingFeatures(
        features(captions, start, positions),
        features(images, start + 100),
        torch.arange(2 * captions).view(captions, 2) % images,
    )


def test_rows_come_in_the_order_asked_for():
    joined = JoinedTables([features(3, 0), features(2, 10), features(4, 20)])
    wanted = torch.tensor([8, 0, 4, 3, 3, 2])
    found = joined.rows(wanted)
    assert found.global_features[:, 0].tolist() == [23, 0, 11, 10, 10, 2]
    assert torch.equal(found.labels, joined.labels[wanted])
    assert joined.column("global_features", wanted)[:, 0].tolist() == [23, 0, 11, 10, 10, 2]
    part = joined.subset(torch.tensor([8, 4, 0]))
    assert part.rows(slice(1, 3)).global_features[:, 0].tolist() == [11, 0]
    assert len(part) == 3 and torch.equal(part.labels, joined.labels[[8, 4, 0]])


def test_captions_are_padded_to_the_longest():
    joined = JoinedTables([features(2, 0, positions=3), features(2, 10, positions=5)])
    found = joined.rows(torch.tensor([3, 0]))
    assert found.local_features.shape == (2, 5, 4)
    assert found.mask.sum(dim=1).tolist() == [5, 3]
    assert found.local_features[1, 3:].abs().sum() == 0


def test_sources_of_captions_keep_their_own_images():
    first, second = source(3, 6, 0, 4), source(2, 4, 50, 6)
    joined = join_captions([first, second])
    for caption, (own, row) in enumerate(
        [(first, 0), (first, 1), (first, 2), (second, 0), (second, 1)]
    ):
        theirs = own.images.rows(own.image_of_caption[row]).global_features
        assert torch.equal(
            joined.images.rows(joined.image_of_caption[caption]).global_features, theirs
        )


def test_images_of_two_makers_are_images_of_the_same_captions():
    first, second = source(3, 6, 0, 4), source(3, 6, 200, 4)
    joined = join_images(first, second)
    assert joined.image_of_caption.shape == (3, 4) and joined.texts is first.texts
    numbers = joined.images.rows(joined.image_of_caption[1]).global_features[:, 0].tolist()
    assert numbers == [102, 103, 302, 303]
    with pytest.raises(ValueError, match="same captions, got 3 and 2"):
        join_images(first, source(2, 4, 0, 4))


def test_labels_of_other_classes():
    matrix = torch.tensor([[1.0, 0], [1, 1], [0, 1]])
    data = relabelled(source(3, 6, 0, 4), matrix)
    assert data.texts.labels.tolist() == [[1, 0], [1, 1], [0, 1]]
    assert data.images.rows(torch.tensor([4])).labels.tolist() == [[1, 1]]
    known = dataclasses.replace(features(3, 0), known_from=torch.rand(3, 3))
    other = JoinedTables([known], torch.eye(3)[:, :2]).subset(torch.tensor([2, 0]))
    assert other.rows(slice(None)).known_from is None  # it was of the classes before
    assert torch.equal(JoinedTables([known, known]).rows(slice(0, 3)).known_from, known.known_from)
