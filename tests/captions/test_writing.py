from collections import Counter

import pytest

from t2ipal.captions import Vocabulary
from t2ipal.captions.tasks import Task, WritingConfig
from t2ipal.captions.writing import Tries, collect, write_captions

PETS = Vocabulary("pets", ("dog", "cat", "fish"), ("dog", "cat", "fish"), ((), ("kitten",), ()))
PLACES = (
    *("park", "garden", "kitchen", "forest", "meadow"),
    *("street", "tower", "tunnel", "cellar", "attic"),
)


def sentence(task: Task, also: str = "") -> str:
    """What a writer that behaves would say."""
    things = " and ".join(f"a {PETS.class_names[index]}" for index in task.classes)
    words = f"{PLACES[task.seed % 10]} of {PLACES[task.seed // 10 % 10]}"
    return f"There is {things}{also} in the {words} {task.number}{task.attempt}."


def behaves(tasks):
    return [sentence(task) for task in tasks]


def collected(writer, count, config=None):
    config = config or WritingConfig()
    tries = Tries(writer, PETS, config)
    return collect(PETS, count, config, lambda tasks: iter(tries(tasks)))


def test_captions_of_a_writer_that_behaves():
    captions = write_captions(PETS, 30, seed=1, writer=behaves)
    assert captions == write_captions(PETS, 30, seed=1, writer=behaves)
    assert len({caption.caption_id for caption in captions}) == 30
    counts = Counter(index for caption in captions for index in caption.labels)
    assert max(counts.values()) - min(counts.values()) <= 1
    for caption in captions:
        assert caption.labels == tuple(sorted(caption.labels)) and not caption.reason
        assert all(PETS.class_names[index] in caption.caption for index in caption.labels)


def test_the_grammar_by_name():
    captions = write_captions("voc2007", 60)
    assert captions[:3] == write_captions("voc2007", 60)[:3]
    assert captions[0].caption_id == "voc2007-grammar-0-0000000"
    with pytest.raises(ValueError, match="writer must be 'grammar' or a function"):
        write_captions("voc2007", 60, writer="gpt2")


def test_a_text_that_does_not_name_its_classes_is_asked_for_again():
    def forgets(tasks):
        return ["A tree." if task.attempt < 2 else sentence(task) for task in tasks]

    written = collected(forgets, 10)
    assert written.num_missing == 0 and written.reasons() == {"no class named": 20}
    assert [each.task.attempt for each in written.taken] == [2] * 10
    with pytest.raises(ValueError, match=r"10 of 10 captions are missing, most of them of .*: no "
                       r"text was good enough \(20 x no class named\)"):  # fmt: skip
        write_captions(PETS, 10, writer=forgets, config=WritingConfig(max_tries=2))


def test_another_class_only():
    def dogs_alone(tasks):
        return [f"A dog in the {PLACES[task.number]}." for task in tasks]

    config = WritingConfig(max_tries=1, class_shares=(1,))
    written = collected(dogs_alone, 6, config)
    assert [each.labels for each in written.taken] == [(0,), (0,)]
    assert Counter(each.reason for each in written.refused) == {
        "not named: cat": 2, "not named: fish": 2,
    }  # fmt: skip
    assert written.num_missing == 4


@pytest.mark.parametrize(("max_extra", "extra"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_what_else_a_text_names_is_a_label_within_limits(max_extra, extra):
    """Of 12 captions of one class each, 4 must name the cat, and 8 others name it unasked."""

    def likes_cats(tasks):
        return [sentence(task, "" if 1 in task.classes else " with a cat") for task in tasks]

    config = WritingConfig(max_tries=1, class_shares=(1,), max_extra=max_extra)
    written = collected(likes_cats, 12, config)
    counts = Counter(index for each in written.taken for index in each.labels)
    assert counts[1] == 4 + extra
    assert written.reasons() == {"named unasked": 8 - extra}
    assert {each.reason for each in written.refused} == {"named unasked: cat"}


def test_what_a_class_implies_is_not_extra():
    animals = Vocabulary("a", ("dog", "animal"), ("dog", "animal"), ((), ()), implied=((1,), ()))
    config = WritingConfig(class_shares=(1,), max_extra=0.0, max_tries=1)
    texts = {0: "A dog in the {}.", 1: "An animal in the {}."}

    def writer(tasks):
        return [texts[task.classes[0]].format(PLACES[task.number]) for task in tasks]

    captions = write_captions(animals, 4, writer=writer, config=config)
    assert sorted(caption.labels for caption in captions) == [(0, 1), (0, 1), (1,), (1,)]


def test_near_duplicates_are_dropped():
    """The words that say something in another order; or, of seven and more, one of them changed."""
    texts = [
        "A dog runs in the park.",
        "In a park, the dog runs!",
        "A dog runs in the garden.",
        "A small brown dog quickly runs in the wide green park today.",
        "A large brown dog quickly runs in the wide green park today.",
        "A large black dog quickly runs in the wide green park today.",
    ]
    config = WritingConfig(max_tries=1, class_shares=(1,))
    one = Vocabulary("one", ("dog",), ("dog",), ((),))
    tries = Tries(lambda tasks: texts, one, config)
    written = collect(one, 6, config, lambda tasks: iter(tries(tasks)))
    assert [each.task.number for each in written.taken] == [0, 2, 3, 5]
    assert [each.reason for each in written.refused] == [
        "near duplicate: caption 0",
        "near duplicate: caption 3",
    ]


def test_texts_become_one_line():
    captions = write_captions(PETS, 1, writer=lambda tasks: [sentence(tasks[0], " \n near a tree")])
    assert "\n" not in captions[0].caption and "  " not in captions[0].caption
