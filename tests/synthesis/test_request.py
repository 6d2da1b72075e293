import pytest

from t2ipal.synthesis.request import CaptionSource


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
