import dataclasses
import json

import pytest

from t2ipal.config import from_dict, to_dict
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.store import RunSettings, Store, open_run, read_settings
from t2ipal.synthesis.request import CaptionSource, SynthesisRequest


def source(folder, captions: str, vocabulary: str, **options) -> CaptionSource:
    (folder / "captions.txt").write_text(captions)
    (folder / "own.yaml").write_text(vocabulary)
    return CaptionSource((f"{folder}/captions.txt",), vocabulary=f"{folder}/own.yaml", **options)


def test_classes_without_a_caption_are_told(tmp_path):
    told: list[str] = []
    text = "classes: [helmets, dog, fire extinguisher, cat]"
    given = source(tmp_path, "a helmet\n" * 9 + "a cat\n", text, num_captions=1, caption_seed=1)
    vocabulary, captions = given.read(tell=told.append)
    assert [row.caption for row in captions.kept] == ["a helmet"]
    assert vocabulary.class_names == ("helmets", "dog", "fire extinguisher", "cat")
    assert told[0].startswith("Looked for in captions: helmets: helmets, helmet; dog: dog, dogs; ")
    assert told[2].startswith("No caption names dog, fire extinguisher. ")
    assert told[3].startswith("No caption that was chosen names cat, though others do")
    assert len(told) == 4


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ("classes: [forklift]", "needs two classes: .* has only 'forklift'"),
        (f"classes: [dog, '{'very ' * 60}long cat']", "must fit into a prompt, in 59 tokens"),
    ],
)
def test_what_training_would_refuse_is_refused_first(tmp_path, vocabulary, message):
    with pytest.raises(ValueError, match=message):
        source(tmp_path, "a forklift\na dog\n", vocabulary).read()


def test_captions_must_be_named():
    with pytest.raises(ValueError, match="captions must name a file, got none"):
        CaptionSource().read()


def test_the_leak_mode_is_kept_with_the_run(tmp_path):
    """A run that did not ask for it keeps what it kept before."""
    rows = [(1, 9, "a dog"), (2, 8, "a cat and a dog"), (3, 7, "a cat")]
    annotations = [{"id": i, "image_id": image, "caption": text} for i, image, text in rows]
    (tmp_path / "captions.json").write_text(json.dumps({"annotations": annotations}))
    (tmp_path / "test.json").write_text(json.dumps({"images": [{"id": 9}]}))
    given = CaptionSource((f"{tmp_path}/captions.json",))

    def settings(source):
        vocabulary, captions = source.read()
        request = SynthesisRequest(SynthesisConfig(), vocabulary, captions)
        return captions, to_dict(request.settings())

    plain, kept = settings(given)
    assert "test_images" not in kept and len(plain.kept) == 3
    look = dataclasses.replace(given, test_images=(f"{tmp_path}/test.json",))
    clean, told = settings(look)
    assert told["test_images"]["mode"] == "clean" and told["test_images"]["num_images"] == 1
    assert [(row.caption_id, row.reason) for row in clean.rejected] == [("1", "of a test image")]
    ancestor, told = settings(dataclasses.replace(look, caption_leak="ancestor"))
    assert told["test_images"]["mode"] == "ancestor" and ancestor.kept == plain.kept
    assert {**kept, "test_images": told["test_images"]} == told
    store = Store(tmp_path / "run")
    again = from_dict(RunSettings, told)
    assert open_run(store, again) and not open_run(store, again)
    assert read_settings(store).test_images == told["test_images"]
    with pytest.raises(ValueError, match=r"test_images: \{.*'ancestor'.*\} there, None here"):
        open_run(store, from_dict(RunSettings, kept))
    with pytest.raises(ValueError, match="name these with --test-images"):
        CaptionSource(caption_leak="ancestor")


def test_narratives_count_for_their_rarest_class(tmp_path):
    """Dog 4, cat 2: "a cat and a dog" counts for cat, and the third caption of dogs is too many."""
    texts = ["a dog", "a cat and a dog", "two dogs", "a dog again", "a cat"]
    lines = [
        json.dumps({"image_id": f"{at}", "annotator_id": 0, "caption": text})
        for at, text in enumerate(texts)
    ]
    (tmp_path / "narratives.jsonl").write_text("\n".join(lines))
    told: list[str] = []
    source = CaptionSource((f"{tmp_path}/narratives.jsonl",), max_per_class=2)
    _, captions = source.read(tell=told.append)
    assert [row.caption_id for row in captions.kept] == ["0/0", "1/0", "2/0", "4/0"]
    assert [(row.caption_id, row.reason) for row in captions.rejected] == [
        ("3/0", "class full: dog")
    ]
    assert told[-1] == "1 captions are left out, since their rarest class has enough: dog 1."
