from pathlib import Path

import pytest

from t2ipal.captions import NounFilter, Vocabulary, load_vocabulary


@pytest.mark.parametrize(
    ("name", "num_classes", "first", "last"),
    [
        ("voc2007", 20, "aeroplane", "tvmonitor"),
        ("coco2014", 80, "person", "toothbrush"),
        ("nuswide", 81, "airport", "zebra"),
    ],
)
def test_embedded(name, num_classes, first, last):
    vocabulary = load_vocabulary(name)
    assert vocabulary.name == name
    assert len(vocabulary.class_names) == num_classes
    assert (vocabulary.class_names[0], vocabulary.class_names[-1]) == (first, last)
    noun_filter = NounFilter(vocabulary)
    for index, prompt_name in enumerate(vocabulary.prompt_names):
        assert index in noun_filter(f"a photo with the {prompt_name}.").labels, prompt_name


def test_nuswide_is_in_alphabetical_order():
    names = load_vocabulary("nuswide").class_names
    assert list(names) == sorted(names)


def test_prompt_names_are_words():
    vocabulary = load_vocabulary("voc2007")
    prompts = dict(zip(vocabulary.class_names, vocabulary.prompt_names))
    assert prompts["tvmonitor"] == "tv monitor"
    assert prompts["pottedplant"] == "potted plant"
    assert prompts["diningtable"] == "dining table"
    assert prompts["aeroplane"] == "aeroplane"


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_own_file(tmp_path):
    vocabulary = load_vocabulary(
        write(
            tmp_path,
            """
            classes:
              - cup
              - {name: hound, prompt: hunting hound, synonyms: ["@dog", wolf], implies: [beast]}
              - {name: beast}
            ignored: [world cup, [hound dog, cup cake]]
            """,
        )
    )
    assert vocabulary.name == "mine"
    assert vocabulary.class_names == ("cup", "hound", "beast")
    assert vocabulary.prompt_names == ("cup", "hunting hound", "beast")
    noun_filter = NounFilter(vocabulary)
    assert noun_filter("wolves and a puppy").labels == (1, 2)
    assert noun_filter("the world cup and two hot dogs").labels == ()
    assert noun_filter("a hound dog with cups").labels == (0,)


def test_adjectives_are_no_nouns(tmp_path):
    text = "classes: [{name: orange}, {name: apple}]"
    fruit = NounFilter(load_vocabulary(write(tmp_path, text)))
    color = NounFilter(load_vocabulary(write(tmp_path, f"{text}\nadjectives: true")))
    for caption, named in (("an orange bus", ()), ("an orange on a table", (0,))):
        assert fruit(caption).labels == named
        assert color(caption).labels == (0,)
    assert color("no orange bus").reason == "only negated: orange"


def test_a_written_synonym_wins_over_a_shared_list(tmp_path):
    text = 'classes: [{name: person, synonyms: ["@person"]}, {name: wedding, synonyms: [bride]}]'
    noun_filter = NounFilter(load_vocabulary(write(tmp_path, text)))
    assert noun_filter("the bride").labels == (1,)
    assert noun_filter("the groom").labels == (0,)


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("helmets", "a worker with a helmet"),
        ("helmets", "two helmets"),
        ("safety vests", "a man in a safety vest"),
        ("children", "a child"),
        ("puppies", "a puppy"),
        ("wolves", "a wolf"),
        ("buses", "a bus"),
        ("bow_(weapon)", "an archer with a bow"),
        ("crab_(animal)", "two crabs"),
        ("traffic_light", "a traffic light"),
        ("sofa, couch", "a couch"),
        ("car/truck", "two trucks"),
        ("A/C unit", "an a/c unit"),
        ("TrafficCone", "a traffic cone"),
        ("T-shirt", "a tshirt"),
        ("caf\u00e9", "a cafe\u0301 in town"),
        ("jalape\u00f1o", "a jalapeno"),
        ("dog", "a \uff44\uff4f\uff47"),
        ("dog", "the d\u00adog and the do\u200bg"),
        ("men's shoe", "a men\u2019s shoe"),
    ],
)
def test_a_name_as_people_write_it(tmp_path, name, caption):
    noun_filter = NounFilter(load_vocabulary(write(tmp_path, f'classes: ["{name}", zebra]')))
    assert noun_filter(caption).labels == (0,)
    assert noun_filter("a thing of a unit").labels == ()


@pytest.mark.parametrize(
    ("name", "caption"),
    [("news", "a new house"), ("glasses", "a glass"), ("goods", "a good day"), ("bus", "a bu")],
)
def test_what_is_no_plural(tmp_path, name, caption):
    noun_filter = NounFilter(load_vocabulary(write(tmp_path, f"classes: [{name}, zebra]")))
    assert noun_filter(caption).labels == ()


def test_a_word_of_two_qualified_names_is_nobody_s(tmp_path):
    text = 'classes: ["bow_(weapon)", "bow_(ribbon)", {name: "bat_(animal)", synonyms: [bats]}]'
    vocabulary = load_vocabulary(write(tmp_path, text))
    assert NounFilter(vocabulary)("a bow and a bat").labels == (2,)
    assert vocabulary.prompt_names[0] == "bow (weapon)"
    assert "bow_(weapon): no word of its own, add synonyms" in vocabulary.describe()


def test_a_list_of_names(tmp_path):
    (tmp_path / "classes.txt").write_text("\ufeffdog\n\n traffic_light \r\ncat\n")
    vocabulary = load_vocabulary(tmp_path / "classes.txt")
    assert vocabulary.class_names == ("dog", "traffic_light", "cat")
    assert vocabulary.name == "classes"
    assert vocabulary.prompt_names == ("dog", "traffic light", "cat")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [dog]\nclasses: [cat]", "the key 'classes' stands twice; leave one of them"),
        ("classes: [{name: dog, name: cat}]", "the key 'name' stands twice"),
        ("classes: [2024-13-45]", "is no YAML"),
        ("classes: [no, cat]", "quote words like 'no' and numbers"),
        ("classes: []", "classes must be a list of at least one class"),
        ("name: x", "classes must be a list of at least one class"),
        ("[a, b]", "must hold a mapping with classes"),
        ("", "must hold a mapping with classes"),
        ("classes: dog", "classes must be a list"),
        ("classes: [{prompt: dog}]", "class 0 must have a name"),
        ("classes: [[dog]]", "class 0 must be a name or a mapping"),
        ("classes: [{name: dog, synonyms: pup}]", "synonyms must be a list of texts, got 'pup'"),
        ("classes: [{name: dog, synonyms: [no]}]", "got False; quote words like 'no'"),
        ("classes: [{name: dog, synonyms: ['!']}]", None),
        ("classes: [{name: dog, synonyms: ['--']}]", "a synonym must hold a word, got '--'"),
        ("classes: [{name: dog, synonym: [pup]}]", "Did you mean 'synonyms'"),
        ("classes: [dog]\nignore: [x]", "Did you mean 'ignored'"),
        ("classes: [dog, dog]", "names a class twice: dog"),
        (
            "classes: [{name: dog, synonyms: [pet]}, {name: cat, synonyms: [pet]}]",
            "'pet' is claimed by both 'dog' and 'cat'",
        ),
        (
            "classes: [{name: mouse}, {name: rodent, synonyms: [mice]}]",
            "'mice' is claimed by both 'mouse' and 'rodent'",
        ),
        ("classes: [{name: dog, synonyms: ['@dgo']}]", "Did you mean 'dog'"),
        ("classes: [{name: dog, implies: [anmal]}, animal]", "Did you mean 'animal'"),
        ("name: 3\nclasses: [dog]", "name must be a text, got 3"),
        ("classes: [dog]\nadjectives: 1", "adjectives must be true or false, got 1"),
        ("classes: [dog", "is no YAML"),
    ],
)
def test_bad_file(tmp_path, text, message):
    path = write(tmp_path, text)
    if message is None:
        load_vocabulary(path)
        return
    with pytest.raises(ValueError, match=message):
        load_vocabulary(path)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"Unknown vocabulary 'voc2008'\. Did you mean 'voc2007'"):
        load_vocabulary("voc2008")
    with pytest.raises(FileNotFoundError, match=r"No vocabulary file absent\.yaml"):
        load_vocabulary("absent.yaml")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (((), (), ()), "must have at least one class"),
        ((("a",), (), ((),)), "1 class_names and 0 prompt_names"),
        ((("a",), ("a",), ((), ())), "1 class_names and 2 synonyms"),
        ((("a",), ("a",), ((),), (), ((1,),)), "implied must be < 1, got"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary("mine", *fields)
