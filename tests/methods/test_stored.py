import dataclasses
import json

import fake_clip
import pytest
import torch
from fake_clip import FakeClip, config, images, training_features
from labelled_images import labelled_images
from safetensors.torch import load, save

from t2ipal.config import to_dict
from t2ipal.methods.class_concept import ClassConceptConfig
from t2ipal.methods.recognizer import FULL, Normalization
from t2ipal.methods.stored import SCORERS, load_recognizer, with_backbone
from t2ipal.methods.t2ipal import T2IPAL
from t2ipal.store import Store
from t2ipal.training.recipes import METHODS, recipe

FOLDER = "train/a"


def class_concept():
    method = ClassConceptConfig(fake_clip.NAMES).build(FakeClip())
    method.prepare(training_features())
    return method.export()


@pytest.mark.parametrize("changes", [{}, {"adapter": "none"}, {"aggregation": "learnable"}])
def test_saved_recognizer_is_the_same(store, changes):
    constants = T2IPAL(config(**changes), FakeClip()).export()
    constants.save(store, FOLDER)
    loaded = load_recognizer(store, FOLDER)
    assert loaded.config == constants.config and loaded.backbone == FakeClip.identity
    test = images(20)
    assert torch.equal(loaded.scores(test), constants.scores(test))


@pytest.mark.parametrize(
    "name", [name for name in METHODS if METHODS[name].learns_from == "labelled images"]
)
def test_every_method_that_learns_from_labelled_images_comes_back(tmp_path, name):
    settings = recipe(name, "voc2007", fake_clip.NAMES, fake_clip.PROMPT_NAMES)
    method = settings.method.build(FakeClip(), 1)
    method.prepare(labelled_images())
    recognizer, test = method.export(), images(20)
    recognizer.save(Store(tmp_path), FOLDER)
    loaded = load_recognizer(Store(tmp_path), FOLDER)
    assert type(loaded.scorer) is type(recognizer.scorer) and loaded.config == settings.method
    assert torch.equal(loaded.scores(test), recognizer.scores(test))
    heatmaps = [each.scorer.heatmap(test.local_features) for each in (loaded, recognizer)]
    assert torch.equal(*heatmaps)
    assert torch.allclose(heatmaps[0].sum(dim=-1), torch.ones(20, len(fake_clip.NAMES)))


@pytest.mark.parametrize("normalization", [Normalization(), FULL, Normalization(0.25, 0.75)])
@pytest.mark.parametrize("make", [class_concept, lambda: T2IPAL(config(), FakeClip()).export()])
def test_every_method_and_normalization_comes_back(tmp_path, make, normalization):
    recognizer = dataclasses.replace(make(), normalization=normalization)
    recognizer.save(Store(tmp_path), FOLDER)
    loaded = load_recognizer(Store(tmp_path), FOLDER)
    assert type(loaded.scorer) is type(recognizer.scorer)
    assert (loaded.config, loaded.normalization) == (recognizer.config, normalization)
    test = images(20)
    assert torch.equal(loaded.scores(test), recognizer.scores(test))
    heatmaps = (r.scorer.heatmap(test.local_features) for r in (loaded, recognizer))
    assert torch.equal(*heatmaps)


def test_a_recognizer_of_the_version_before_is_read(tmp_path):
    """Its JSON is the method's config alone, indented and in the config's order."""
    constants = T2IPAL(config(), FakeClip()).export()
    store = Store(tmp_path)
    constants.save(store, FOLDER)
    values = to_dict(config())
    assert not {"method", "backbone", "normalization"} & values.keys()
    (tmp_path / FOLDER / "recognizer.json").write_text(json.dumps(values, indent=2) + "\n")
    loaded = load_recognizer(store, FOLDER)
    assert loaded.backbone is None and loaded.normalization == Normalization()
    assert torch.equal(loaded.scores(images(9)), constants.scores(images(9)))
    named = with_backbone(loaded, FakeClip.identity)
    assert named.backbone == FakeClip.identity
    other = dataclasses.replace(FakeClip.identity, fingerprint="f" * 16)
    assert with_backbone(named, other).backbone == FakeClip.identity  # what it says itself wins


def test_bad_recognizers(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Run jobs/train.py first"):
        load_recognizer(store, FOLDER)
    T2IPAL(config(), FakeClip()).export().save(store, FOLDER)
    path = tmp_path / FOLDER / "recognizer.json"
    good = path.read_text()
    path.write_text(json.dumps(to_dict(config(adapter="none"))))
    with pytest.raises(ValueError, match=r"must hold .* got .*prototypes"):
        load_recognizer(store, FOLDER)
    fewer = config(class_names=fake_clip.NAMES[1:], prompt_names=fake_clip.NAMES[1:])
    path.write_text(json.dumps(to_dict(fewer)))
    with pytest.raises(ValueError, match=r"must have shape \(4, 24\), got \(5, 24\)"):
        load_recognizer(store, FOLDER)
    path.write_text(good.replace('"sharpness"', '"sharpnes"'))
    with pytest.raises(ValueError, match="Did you mean 'sharpness'"):
        load_recognizer(store, FOLDER)
    path.write_text(good[:-20])
    with pytest.raises(ValueError, match=r"a/recognizer.json in .* damaged.*run jobs/train.py aga"):
        load_recognizer(store, FOLDER)
    path.write_text(json.dumps(to_dict(config()) | {"method": "t2pal"}))
    with pytest.raises(ValueError, match=r"Unknown method in .*'t2pal'. Did you mean 't2ipal'"):
        load_recognizer(store, FOLDER)


def test_bad_weights(tmp_path):
    store, key = Store(tmp_path), f"{FOLDER}/recognizer.safetensors"
    class_concept().save(store, FOLDER)
    good = store.read(key)
    store.write(key, good[:-10])
    with pytest.raises(ValueError, match=r"weights in .*train/a are damaged .*jobs/train.py again"):
        load_recognizer(store, FOLDER)
    tensors = load(good)
    store.write(key, save({**tensors, "bank": tensors["bank"][:, :-1].clone()}))
    with pytest.raises(ValueError, match=r"must have shape \(\d+, \d+\), got \(\d+, \d+\)"):
        load_recognizer(store, FOLDER)
    store.write(key, save({**tensors, "bank": tensors["bank"][0].clone()}))
    with pytest.raises(ValueError, match=r"bank in recognizer.safetensors must have shape"):
        load_recognizer(store, FOLDER)


def test_the_table_has_every_methods_own_name():
    for name, (config_type, scorer_type) in SCORERS.items():
        assert config_type.__dataclass_fields__["method"].default == name
        assert scorer_type.__dataclass_fields__["config"].type is config_type


def test_a_recognizer_may_be_the_store_itself(store):
    recognizer = T2IPAL(config(), FakeClip()).export()
    recognizer.save(store, "")
    assert store.list() == ["recognizer.json", "recognizer.safetensors"]
    assert torch.equal(load_recognizer(store, "").scores(images(5)), recognizer.scores(images(5)))
