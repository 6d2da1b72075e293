import pytest
import torch
from fake_clip import NAMES, PROMPT_NAMES, FakeClip, images, training_features

from t2ipal.config import field_paths, from_dict, override, to_dict
from t2ipal.evaluation.test_sets import DATA_SETS
from t2ipal.features.backbone import clip_templates
from t2ipal.training.captions import captions_for
from t2ipal.training.loop import fit
from t2ipal.training.recipes import METHODS, SCHEDULES, Recipe, recipe


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("method", METHODS)
def test_every_recipe_is_valid_and_survives_json(method, schedule):
    settings = recipe(method, schedule, NAMES, PROMPT_NAMES, seed=3)
    assert settings.training.seed == 3
    assert type(settings.method) is METHODS[method].config
    assert from_dict(Recipe, to_dict(settings)) == settings


@pytest.mark.parametrize("method", METHODS)
def test_every_recipe_trains(method):
    settings = recipe(method, "pictovoc", NAMES, PROMPT_NAMES)
    if settings.training.num_epochs:
        settings = override(settings, {"training.num_epochs": 2})
    model = settings.method.build(FakeClip(), 0)
    data = captions_for(settings, training_features(), FakeClip())
    scores = fit(model, data, settings.training).recognizer.scores(images(10))
    assert scores.shape == (10, len(NAMES)) and torch.isfinite(scores).all()


def test_zero_shot_is_clip():
    test = images(10)
    settings = recipe("zsclip", "voc2007", NAMES, PROMPT_NAMES)
    result = fit(settings.method.build(FakeClip()), training_features(), settings.training)
    names = FakeClip().encode_text([f"a photo of a {name}." for name in PROMPT_NAMES])
    expected = test.pooled_features @ names.T
    assert torch.allclose(result.recognizer.scores(test), expected, atol=1e-6)


def test_zero_shot_with_local_scores_has_clips_own_scale():
    """Per location 100 cos as weights and as score, half and half with the global one."""
    test = images(10)
    names = FakeClip().encode_text([f"a photo of a {name}." for name in PROMPT_NAMES])
    cosines = test.local_features @ names.T
    local = ((100 * cosines).softmax(dim=1) * cosines).sum(dim=1)
    expected = (test.pooled_features @ names.T + local) / 2
    for schedule in SCHEDULES:
        settings = recipe("zsclip_local", schedule, NAMES, PROMPT_NAMES)
        scores = settings.method.build(FakeClip()).export().scores(test)
        assert torch.allclose(scores, expected, atol=1e-6), schedule


def test_zero_shot_of_80_templates():
    templates = clip_templates()
    assert len({*templates}) == 80 and "a photo of a {}." in templates
    embeddings = torch.stack(
        [
            torch.stack([FakeClip().encode_text([each.format(name)])[0] for each in templates])
            for name in PROMPT_NAMES
        ]
    )
    names = torch.nn.functional.normalize(embeddings.mean(dim=1), dim=-1)
    test = images(10)
    scores, both = (
        recipe(name, "nuswide", NAMES, PROMPT_NAMES).method.build(FakeClip()).export().scores(test)
        for name in ("zsclip_80", "zsclip_80_local")
    )
    assert torch.allclose(scores, test.pooled_features @ names.T, atol=1e-6)
    cosines = test.local_features @ names.T
    local = ((100 * cosines).softmax(dim=1) * cosines).sum(dim=1)
    assert torch.allclose(both, (scores + local) / 2, atol=1e-6)


@pytest.mark.parametrize("name", ["tai_dpt", "tai_dpt_ancestor", "tai_dpt_adapter"])
def test_tai_dpts_scales(name):
    """The ancestor's: 50 for captions; 40 for test images, 4 on NUS-WIDE."""
    for schedule, scale in {"voc2007": 40, "coco2014": 40, "nuswide": 4, "pictovoc": 10}.items():
        method = recipe(name, schedule, NAMES, PROMPT_NAMES).method
        assert (1 / method.image_temperature, 1 / method.text_temperature) == (scale, 50)


def test_the_ancestors_recipe():
    training = recipe("tai_dpt_ancestor", "coco2014", NAMES, PROMPT_NAMES).training
    assert training.template_captions and training.drop_last
    plain = recipe("tai_dpt", "coco2014", NAMES, PROMPT_NAMES).training
    assert not plain.template_captions and not plain.drop_last


def test_paper_defaults():
    settings = recipe("t2ipal", "voc2007", NAMES, PROMPT_NAMES)
    training, method = settings.training, settings.method
    assert (training.num_epochs, training.batch_size, training.lr) == (20, 512, 1e-4)
    assert (method.residual_ratio, method.sharpness, method.margin, method.scale) == (1, 5.5, 1, 4)
    assert recipe("tai_dpt", "nuswide", NAMES, PROMPT_NAMES).training.lr == 1e-3


@pytest.mark.parametrize(
    ("schedule", "sharpness"),
    [("voc2007", (60, 30)), ("coco2014", (80, 40)), ("nuswide", (40, 20))],
)
def test_class_concepts_paper_defaults(schedule, sharpness):
    method = recipe("class_concept", schedule, NAMES, PROMPT_NAMES).method
    assert (method.global_sharpness, method.local_sharpness) == sharpness
    assert method.num_rounds == 3


def test_a_run_of_the_version_before_is_the_same_recipe():
    """Settings are compared and fingerprinted as JSON: a method's tag must not change it."""
    told = to_dict(recipe("t2ipal", "pictovoc", NAMES, PROMPT_NAMES))
    assert "method" not in told["method"] and told["method"]["adapter"] == "local"
    assert to_dict(recipe("class_concept", "voc2007", NAMES, PROMPT_NAMES))["method"]["method"] == (
        "class_concept"
    )


def test_what_cannot_be_changed_is_an_option():
    for name, method in METHODS.items():
        options = field_paths(recipe(name, "voc2007", NAMES, PROMPT_NAMES))
        assert {*method.fixed} <= {*options} and {*method.changes} <= {*options}, name


def test_every_data_set_has_a_schedule():
    assert {data_set.schedule for data_set in DATA_SETS.values()} == {*SCHEDULES}


def test_titles_tell_methods_apart():
    assert len({method.title for method in METHODS.values()}) == len(METHODS)
    assert all(method.description for method in METHODS.values())


def test_unknown_names():
    with pytest.raises(ValueError, match="Did you mean 'tai_dpt'"):
        recipe("tai-dpt", "voc2007", NAMES, PROMPT_NAMES)
    with pytest.raises(ValueError, match="Did you mean 'voc2007'"):
        recipe("t2ipal", "voc07", NAMES, PROMPT_NAMES)
