import dataclasses

import pytest
import torch
from fake_clip import NAMES, PROMPT_NAMES, FakeClip, training_features

from t2ipal.config import override
from t2ipal.features.joined import JoinedTables
from t2ipal.training.captions import captions_for, first_of_rarest, templates
from t2ipal.training.loop import fit
from t2ipal.training.recipes import recipe


def ancestor(**changes):
    settings = recipe("tai_dpt_ancestor", "pictovoc", NAMES, PROMPT_NAMES)
    changes = {"training.num_epochs": 2, "training.batch_size": 50, **changes}
    return override(settings, changes)


def test_template_captions():
    data, clip = training_features(40), FakeClip()
    made = captions_for(ancestor(), data, clip)
    assert len({*templates()}) == 89 and all(each.count("{}") == 1 for each in templates())
    count = 89 * len(NAMES)
    assert (len(made.texts), made.num_templates) == (40 + count, count)
    assert torch.equal(made.texts.labels[:40], data.texts.labels)
    assert torch.equal(made.texts.labels[40:], torch.eye(len(NAMES)).repeat(89, 1))
    assert torch.equal(made.image_of_caption[:40], data.image_of_caption)
    assert (made.image_of_caption[40:] == -1).all() and made.images is data.images
    assert data.num_templates == 0  # what was handed in stays as it was

    number = templates().index("a photo of a {}.")
    texts = clip.encode_texts([f"a photo of a {name}." for name in PROMPT_NAMES])
    start = 40 + number * len(NAMES)
    rows = torch.tensor([start + 3, 7, start])
    found = made.texts.rows(rows)
    assert found.labels.argmax(dim=1)[[0, 2]].tolist() == [3, 0]
    captions = data.texts.rows(torch.tensor([7]))
    assert torch.equal(found.global_features[[0, 2]], texts.global_features[[3, 0]])
    assert torch.equal(found.global_features[1], captions.global_features[0])
    length = captions.mask.shape[1]
    assert torch.equal(found.local_features[1, :length], captions.local_features[0])
    assert found.mask.sum(dim=1).tolist() == [
        int(texts.mask[3].sum()), int(captions.mask.sum()), int(texts.mask[0].sum()),
    ]  # fmt: skip
    own = int(texts.mask[3].sum())
    assert torch.allclose(found.local_features[0, :own], texts.local_features[3, :own], atol=1e-3)
    assert torch.equal(made.texts.column("global_features", rows), found.global_features)


def test_what_is_appended_can_be_split_again():
    table = captions_for(ancestor(), training_features(40), FakeClip()).texts
    keep = torch.ones(len(table), dtype=torch.bool)
    keep[[3, 50]] = False
    some = table.subset(keep)
    assert isinstance(some, JoinedTables) and len(some) == len(table) - 2
    assert torch.equal(some.labels, table.labels[keep])
    rows = torch.tensor([60, 2, 3])
    expected = table.rows(torch.tensor([62, 2, 4]))
    assert torch.equal(some.rows(rows).local_features, expected.local_features)
    assert torch.equal(table.rows(slice(0, 4)).labels, table.labels[:4])


def test_the_first_captions_of_the_rarest_class():
    labels = torch.tensor([[1, 0, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0.0]])
    # Named 5, 3 and 1 times: the captions count for classes 2 1 0 1 1 0.
    assert first_of_rarest(labels, 1).tolist() == [0, 1, 2]
    assert first_of_rarest(labels, 2).tolist() == [0, 1, 2, 3, 5]
    assert first_of_rarest(labels, 3).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_cap_and_templates_together():
    data = training_features(40)
    settings = ancestor(**{"training.max_per_class": 3})
    made = captions_for(settings, data, FakeClip())
    kept = first_of_rarest(data.texts.labels, 3)
    assert len(kept) <= 3 * len(NAMES) and len(made.texts) == len(kept) + 89 * len(NAMES)
    assert torch.equal(made.image_of_caption[: len(kept)], data.image_of_caption[kept])
    fit(settings.method.build(FakeClip()), made, settings.training)


def test_a_recipe_without_either_changes_nothing():
    data = training_features(40)
    assert captions_for(recipe("tai_dpt", "voc2007", NAMES, PROMPT_NAMES), data, FakeClip()) is data


def test_training_on_other_captions_is_refused():
    settings, data = ancestor(), training_features(40)
    with pytest.raises(ValueError, match="template_captions True and max_per_class None needs"):
        fit(settings.method.build(FakeClip()), data, settings.training)
    made = captions_for(settings, data, FakeClip())
    capped = dataclasses.replace(settings.training, max_per_class=2)
    with pytest.raises(ValueError, match="and max_per_class 2 needs captions chosen so"):
        fit(settings.method.build(FakeClip()), made, capped)


def test_template_captions_are_learned_from():
    settings, data = ancestor(**{"training.drop_last": False}), training_features(40)
    made = captions_for(settings, data, FakeClip())
    plain = override(settings, {"training.template_captions": False})
    results = [
        fit(each.method.build(FakeClip()), captions, each.training).recognizer.scorer
        for each, captions in ((settings, made), (plain, data))
    ]
    assert not torch.equal(*(scorer.global_embeddings for scorer in results))
