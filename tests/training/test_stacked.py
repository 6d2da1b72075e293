import itertools

import pytest
import torch
from fake_clip import NAMES, PROMPT_NAMES, FakeClip, images, training_features
from fake_clip import config as method_config
from torch.nn import functional

from t2ipal.config import override
from t2ipal.evaluation.evaluate import predict
from t2ipal.features.backbone import load_text_tower
from t2ipal.features.config import BackboneConfig
from t2ipal.features.prompt_tower import all_kept
from t2ipal.features.sets import FeatureSet, TrainingFeatures
from t2ipal.methods.t2ipal import T2IPAL, Numbers
from t2ipal.training.captions import captions_for
from t2ipal.training.loop import TrainingConfig, fit
from t2ipal.training.recipes import METHODS, Recipe, recipe
from t2ipal.training.stacked import Stack, stack_key

VALIDATION = images(30, seed=5)
SHORT = Recipe(method_config(), TrainingConfig(num_epochs=5, batch_size=16, lr=0.001))
VARIED = [
    {
        "method.residual_ratio": 0.5 * k,
        "method.sharpness": 1.0 + k,
        "method.image_weight": (0.0, 0.6, 1.0, 0.3)[k % 4],
        "method.text_temperature": 0.02 + 0.01 * k,
        "method.image_temperature": 0.1 - 0.01 * k,
        "method.margin": 1.0 + 0.1 * k,
        "method.scale": 4.0 + k,
        "training.lr": 0.0005 * (k + 1),
        "training.prototype_lr": None if k % 2 else 0.01,
        "training.warmup_lr": 1e-5 * (k + 1),
        "training.momentum": 0.9 - 0.1 * k,
        "training.weight_decay": 5e-4 * k,
        "training.images_per_caption": (None, 1, 2, 1)[k % 4],
        "training.seed": k,
        "training.data_seed": 3,
    }
    for k in range(6)
]


def stack(recipes, data, clip=None, **options):
    clip = clip or FakeClip()
    methods = [each.method.build(clip, each.training.seed) for each in recipes]
    return Stack(methods, [each.training for each in recipes], data, **options)


def alone(each, data, clip=None):
    return fit(each.method.build(clip or FakeClip(), each.training.seed), data, each.training)


def check(stacked, recipes, data, clip=None, rel=1e-5):
    """Losses and scores of every trial are those of `fit`."""
    losses = [stacked.train_epoch() for _ in range(stacked.num_epochs)]
    scores = [*stacked.scores(VALIDATION)]
    assert len(scores) == len(recipes)
    for k, each in enumerate(recipes):
        expected = alone(each, data, clip)
        history = [record.loss for record in expected.history]
        assert [loss[k].item() for loss in losses] == pytest.approx(history, rel=rel)
        (known,) = predict([expected.recognizer], VALIDATION)
        largest = max(float(abs(known).max()), 1.0)  # logits are no cosines
        torch.testing.assert_close(scores[k], torch.from_numpy(known), rtol=0, atol=rel * largest)
        exported = stacked.recognizer(k)
        assert exported.config == expected.recognizer.config
        assert exported.backbone == expected.recognizer.backbone
        (known,) = predict([exported], VALIDATION)
        torch.testing.assert_close(scores[k], torch.from_numpy(known), rtol=0, atol=rel * largest)


def test_every_number_is_varied():
    names = {name.split(".")[1] for name in VARIED[0] if name.startswith("method.")}
    assert names == {*Numbers._fields}


@pytest.mark.parametrize("at_once", [None, 1, 4])
def test_a_stack_is_its_trials_one_by_one(at_once):
    recipes, data = [override(SHORT, values) for values in VARIED], training_features(60)
    assert len({stack_key(each) for each in recipes}) == 1
    check(stack(recipes, data, at_once=at_once), recipes, data)


@pytest.mark.parametrize("order", [[5], [3, 0], [4, 2, 5, 1, 0, 3]])
def test_neither_number_nor_order_matters(order):
    recipes, data = [override(SHORT, VARIED[k]) for k in order], training_features(60)
    check(stack(recipes, data), recipes, data)


@pytest.mark.parametrize(
    "changes",
    [
        {"method.class_specific_context": True},
        {"method.adapter": "global"},
        {"method.adapter": "none"},
        {"method.adapter": "none", "method.local_scores": False},
        {"method.aggregation": "mean"},
        {"method.aggregation": "max"},
        {"method.aggregation": "learnable"},
        {"method.residual": "learnable"},
        {"method.global_feature": "pooled", "method.context_init": "a photo of a"},
    ],
    ids=str,
)
def test_every_form_of_the_method_is_stacked(changes):
    start, data = override(SHORT, changes), training_features(60)
    recipes = [override(start, values) for values in VARIED[:3]]
    check(stack(recipes, data), recipes, data)


@pytest.mark.parametrize(
    "name", [n for n, m in METHODS.items() if not m.fixed and hasattr(m.config, "numbers")]
)
def test_every_method_that_is_trained_is_stacked(name):
    start = override(recipe(name, "pictovoc", NAMES, PROMPT_NAMES), {"training.num_epochs": 2})
    varied = [{"training.lr": 1e-3 * k, "training.batch_size": 16} for k in (1, 2)]
    recipes = [override(start, values) for values in varied]
    data = captions_for(start, training_features(40), FakeClip())
    check(stack(recipes, data), recipes, data)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_hundred_steps_before_a_real_tower(precision):
    """CLIP's own causal tower, prompts that begin alike, 1e-5 after 100 steps in float32."""
    clip = load_text_tower(BackboneConfig())
    start = recipe("t2ipal", "pictovoc", NAMES, PROMPT_NAMES)
    start = override(
        start,
        {
            "training.num_epochs": 25,
            "training.batch_size": 16,
            "training.precision": precision,
            "training.prototype_lr": 0.1,
        },
    )
    data = _wide(training_features(64))
    varied = [dict(itertools.islice(values.items(), 3)) for values in VARIED]
    recipes = [override(start, {**v, "training.lr": 1e-4 * (k + 1)}) for k, v in enumerate(varied)]
    stacked = stack(recipes, data, clip)
    losses = [stacked.train_epoch() for _ in range(25)][-1]
    for k in (0, 3):
        expected = alone(recipes[k], data, clip).history[-1].loss
        assert losses[k].item() == pytest.approx(
            expected, rel=1e-5 if precision == "fp32" else 0.02
        )


def _wide(data):
    """The same features in as many dimensions as the tower gives."""

    def widened(part):
        rows, missing = part.global_features, 128 - part.global_features.shape[-1]
        wide = [functional.pad(x, (0, missing)) for x in (rows, part.local_features)]
        return FeatureSet(*wide, part.mask, part.labels)

    return TrainingFeatures(widened(data.texts), widened(data.images), data.image_of_caption)


def test_trials_leave_and_the_others_go_on_as_if_nothing_were():
    recipes, data = [override(SHORT, values) for values in VARIED], training_features(60)
    stacked = stack(recipes, data)
    for _ in range(2):
        stacked.train_epoch()
    stacked.keep([4, 1])
    assert len(stacked) == 2
    for _ in range(3):
        losses = stacked.train_epoch()
    for loss, k in zip(losses.tolist(), (4, 1)):
        assert loss == pytest.approx(alone(recipes[k], data).history[-1].loss, rel=1e-5)


def test_a_trial_that_diverges_stops_no_other():
    values = [{"training.lr": 0.001}, {"training.lr": 1e30}, {"training.lr": 0.002}]
    recipes, data = [override(SHORT, each) for each in values], training_features(60)
    stacked = stack(recipes, data)
    losses = torch.stack([stacked.train_epoch() for _ in range(5)])
    assert losses[:, 1].isnan().any() or losses[:, 1].isinf().any()
    for k in (0, 2):
        expected = [record.loss for record in alone(recipes[k], data).history]
        assert losses[:, k].tolist() == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_stacked_has_another_key():
    changes = [
        {},
        {"method.context_length": 4},
        {"method.adapter": "none"},
        {"training.num_epochs": 6},
        {"training.batch_size": 8},
        {"training.seed": 1},  # and with it the order of the data
        {"training.precision": "bf16"},
    ]
    keys = {stack_key(override(SHORT, each)) for each in changes}
    assert len(keys) == len(changes)
    same = [{"training.seed": seed, "training.data_seed": 0} for seed in range(3)]
    assert len({stack_key(override(SHORT, each)) for each in same}) == 1


@pytest.mark.parametrize("name", ["zsclip", "class_concept"])
def test_a_method_without_training_is_refused(name):
    with pytest.raises(ValueError, match=r"A search trains: method .* has nothing to train"):
        stack_key(recipe(name, "pictovoc", NAMES, PROMPT_NAMES))


def test_activations_of_few_trials_are_kept_where_they_are_large(monkeypatch):
    recipes, data = [override(SHORT, values) for values in VARIED], training_features(60)
    whole = stack(recipes, data)
    whole.train_epoch()
    assert whole.at_once == len(VARIED)
    monkeypatch.setattr("t2ipal.training.stacked.KEPT_BYTES", 1)
    small = stack(recipes, data)
    assert torch.allclose(small.train_epoch(), stack(recipes, data, at_once=6).train_epoch())
    assert small.at_once == 1


def test_memory_that_is_too_short_is_met_with_fewer_trials_at_once(monkeypatch):
    recipes, data = [override(SHORT, values) for values in VARIED], training_features(60)
    expected = stack(recipes, data).train_epoch()
    stacked, original, sizes = stack(recipes, data), Stack._gradients, []

    def gradients(self, batch, part):
        sizes.append(part.stop - part.start)
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, batch, part)

    monkeypatch.setattr(Stack, "_gradients", gradients)
    torch.testing.assert_close(stacked.train_epoch(), expected)
    assert sizes[:3] == [6, 3, 1] and stacked.at_once == 1
    monkeypatch.setattr(Stack, "_gradients", lambda *_: original(1 / 0))
    with pytest.raises(ZeroDivisionError):
        stacked.train_epoch()
    assert not all_kept.get()


def test_the_backbone_and_the_features_stay_as_they_are():
    clip, data = FakeClip(), training_features(60)
    before = [clip.embedding.clone(), data.texts.local_features.clone()]
    stacked = stack([override(SHORT, values) for values in VARIED], data, clip)
    stacked.train_epoch()
    assert torch.equal(before[0], clip.embedding)
    assert torch.equal(before[1], data.texts.local_features)
    assert isinstance(stacked.template, T2IPAL)
