"""Normalized scores through the job, and what of it is stored."""

import json

import pytest
import torch
from small_run import FEW_SCENES
from tiny_clip import write_tiny_clip

from t2ipal.captions import Caption, filter_captions, load_vocabulary
from t2ipal.commands import evaluate, train
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.evaluation.normalization import choose_normalization
from t2ipal.features.reading import read_training_features
from t2ipal.methods.recognizer import FULL, Normalization
from t2ipal.methods.stored import load_recognizer
from t2ipal.pictovoc.worlds import WORLDS, World
from t2ipal.recognition.making import HELD_OUT
from t2ipal.store import Store
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.rendering import RenderingSynthesizer
from t2ipal.synthesis.request import SynthesisRequest
from t2ipal.training.validation import split_captions

METHODS = ("class_concept", "t2ipal", "zsclip")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A run that names each class six times, and the arguments of training on it."""
    folder, vocabulary = tmp_path_factory.mktemp("normalized"), load_vocabulary("voc2007")
    names = vocabulary.prompt_names
    captions = [
        Caption(f"{shift}-{at}", f"A photo of a {name} and a {names[(at + shift) % len(names)]}.")
        for shift in (1, 2, 3)
        for at, name in enumerate(names)
    ]
    config = SynthesisConfig(pipeline="rendered", images_per_caption=1)
    request = SynthesisRequest(config, vocabulary, filter_captions(captions, vocabulary))
    synthesize(Store(folder / "run"), request, factory=RenderingSynthesizer)
    words = ["--run", str(folder / "run"), "--model", str(write_tiny_clip(folder / "clip"))]
    words += ["--num-workers", "0", "--methods", *METHODS, "--seeds", "0", "1"]
    return folder / "run", [*words, "--set", "training.num_epochs=1"]


def recognizers(folder, summary):
    store = Store(folder)
    return {name: load_recognizer(store, name) for name in summary["recognizers"]}


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_full_is_put_on_what_was_trained_and_taken_off_again(given, tmp_path):
    run, words = given
    words = [*words, "--output", str(tmp_path)]
    summary = train.main(words)
    plain = recognizers(tmp_path, summary)
    assert {*plain} == {f"{m}-seed0" for m in METHODS} | {"t2ipal-seed1"}
    assert {one.normalization for one in plain.values()} == {Normalization()}

    again = train.main([*words, "--normalization", "full"])
    assert again["recognizers"] == summary["recognizers"]
    full = recognizers(tmp_path, again)
    images = read_training_features(Store(run), summary["features"]).images.rows(slice(None))
    for name, recognizer in full.items():
        assert recognizer.normalization == FULL
        assert torch.equal(recognizer.scores(images), FULL(plain[name].scores(images)))
        stored = json.loads((tmp_path / name / "recognizer.json").read_text())
        assert stored["normalization"] == {"mean_weight": 1.0, "deviation_power": 1.0}

    before = times(tmp_path)
    train.main([*words, "--normalization", "full"])  # nothing left to do
    assert times(tmp_path) == before

    train.main(words)  # what is asked for holds, whatever was there
    for name, recognizer in recognizers(tmp_path, summary).items():
        assert recognizer.normalization == Normalization()
        assert torch.equal(recognizer.scores(images), plain[name].scores(images))
        assert "normalization" not in json.loads((tmp_path / name / "recognizer.json").read_text())


def test_partial_is_chosen_on_captions_that_training_never_saw(given, tmp_path):
    run, words = given
    summary = train.main([*words, "--output", str(tmp_path), "--normalization", "partial"])
    data = read_training_features(Store(run), summary["features"])
    rest, held_out = split_captions(data, HELD_OUT, 0)
    assert 0 < len(rest.texts) < len(data.texts)
    found = recognizers(tmp_path, summary)
    for method in METHODS:
        mine = [one for name, one in found.items() if name.startswith(f"{method}-seed")]
        chosen = {one.normalization for one in mine}  # all seeds have the same
        assert chosen == {choose_normalization(mine, held_out)}
    settings = json.loads((tmp_path / "t2ipal-seed0" / "settings.json").read_text())
    assert settings["inputs"]["held_out"] == HELD_OUT
    # A concept is the mean of its captions: those that were held out are not among them.
    bank = found["class_concept-seed0"].scorer.bank
    assert torch.equal(bank, rest.texts.column("global_features"))

    before = times(tmp_path)
    train.main([*words, "--output", str(tmp_path), "--normalization", "partial"])
    assert times(tmp_path) == before
    message = r"t2ipal-seed0 holds .*\(inputs.held_out: 0.2 there, None here\)"
    with pytest.raises(ValueError, match=message):
        train.main([*words, "--output", str(tmp_path), "--methods", "t2ipal"])


def test_partial_on_labelled_validation_images(given, tmp_path, monkeypatch):
    """Nothing is held out of training then: recognizers are those of the plain training."""
    run, words = given
    monkeypatch.setitem(WORLDS, "pictovoc_validation", World("validation", count=FEW_SCENES))
    words = [*words, "--output", str(tmp_path)]
    plain = recognizers(tmp_path, train.main(words))
    partial = ["--normalization", "partial", "--validation-set", "pictovoc_validation"]
    summary = train.main([*words, *partial])
    images = read_training_features(Store(run), summary["features"]).images.rows(slice(None))
    for name, recognizer in recognizers(tmp_path, summary).items():
        assert torch.equal(recognizer.scorer.scores(images), plain[name].scores(images))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("file,labels\na.jpg,dgo\n", r"Unknown class in .*labels.csv, row 2, 'dgo'. Did you mean"),
        ("file,labels\na.jpg,\n", r"No image shows any of the classes: aeroplane, bicycle, "),
        ("file,labels\nb.jpg,dog\n", r"lacks 1 of 1 images, first b.jpg"),
    ],
)
def test_a_validation_set_is_looked_at_before_training(given, tmp_path, labels, message):
    _, words = given
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "labels.csv").write_text(labels)
    partial = ["--normalization", "partial", "--validation-set", str(tmp_path)]
    with pytest.raises((ValueError, OSError), match=message):
        train.main([*words, "--output", str(tmp_path / "out"), *partial])
    assert not (tmp_path / "out").exists()


def test_a_validation_set_of_other_classes(given, tmp_path, monkeypatch):
    _, words = given
    colors = World("validation", count=1, class_names=("red",))
    monkeypatch.setitem(WORLDS, "pictovoc_validation", colors)
    partial = ["--normalization", "partial", "--validation-set", "pictovoc_validation"]
    message = "The run knows other classes than validation set pictovoc_validation: choose on anot"
    with pytest.raises(ValueError, match=message):
        train.main([*words, "--output", str(tmp_path / "out"), *partial])
    assert not (tmp_path / "out").exists()


def test_an_evaluation_is_of_normalized_scores(given, monkeypatch):
    _, words = given
    monkeypatch.setitem(WORLDS, "pictovoc", World(count=FEW_SCENES))
    reached = {}
    for kind in ("none", "full"):
        train.main([*words, "--normalization", kind])
        methods = evaluate.main(["--run", *words[1:4]])["methods"]
        reached[kind] = {name: numbers["mean"] for name, numbers in methods.items()}
    assert reached["none"].keys() == reached["full"].keys() == {*METHODS}
    assert all(reached["none"][name] != reached["full"][name] for name in METHODS)
