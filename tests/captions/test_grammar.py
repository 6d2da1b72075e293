import pytest

from t2ipal.captions import NounFilter, Vocabulary, filter_captions, load_vocabulary
from t2ipal.captions.grammar import GrammarWriter
from t2ipal.captions.tasks import Task, WritingConfig, make_task, plan_classes
from t2ipal.captions.writing import write_captions
from t2ipal.pictovoc.captions import world_captions


def written(vocabulary, count=400):
    plan = plan_classes(len(vocabulary.class_names), count, WritingConfig())
    tasks = [make_task(number, 0, classes, 0) for number, classes in enumerate(plan)]
    return tasks, GrammarWriter(vocabulary)(tasks)


@pytest.mark.parametrize(
    "name", ["voc2007", "coco2014", "nuswide", "pictovoc_novel", "pictovoc_colors"]
)
def test_a_sentence_names_what_it_must_and_nothing_else(name):
    vocabulary = load_vocabulary(name)
    look = NounFilter(vocabulary)
    tasks, texts = written(vocabulary)
    assert len({*texts}) > 350
    wanted = [{each for i in task.classes for each in look.classes_of(i)} for task in tasks]
    missed = [text for text, want in zip(texts, wanted) if set(look(text).labels) != want]
    assert len(missed) <= 4, missed
    assert written(vocabulary)[1] == texts


def test_sentences_are_sentences():
    _, texts = written(load_vocabulary("coco2014"))
    for text in texts:
        assert text[0].isupper() and text.endswith(".") and "  " not in text, text
        assert not {" ,", ",,", " .", " a a", " an b", "{"} & {text[i : i + 2] for i in range(99)}


def test_names_of_any_kind():
    """Plurals, mass nouns, pairs, things of which there is one, articles by their sound."""
    names = ("forklifts", "unicycle", "hourglass", "snow", "scissors", "moon", "bow_(weapon)")
    vocabulary = Vocabulary("own", names, names, ((),) * len(names))
    write, look = GrammarWriter(vocabulary), NounFilter(vocabulary)
    for index in range(len(names)):
        tasks = [Task(0, 0, (index,), seed) for seed in range(60)]
        texts = [text.lower().replace(",", "").replace(".", "") for text in write(tasks)]
        assert all(look(text).labels == (index,) for text in texts)
        joined = " ".join(texts)
        allowed = {
            "forklifts": ("forklift ", "forklifts "),
            "unicycle": ("a unicycle ", "unicycles "),
            "hourglass": ("an hourglass ", "hourglasses "),
            "snow": ("snow ",),
            "scissors": ("a pair of",),
            "moon": ("the moon ",),
            "bow_(weapon)": ("a bow ", "bows "),
        }[names[index]]
        assert all(words in joined for words in allowed), joined
        assert not any(w in joined for w in ("an unicycle", "a hourglass", "a snow", "snows",
                                             "a scissors", "a moon", "a forklifts"))  # fmt: skip


def test_another_style_than_the_world_captions():
    ours = {caption.caption for caption in write_captions("voc2007", 200)}
    theirs = [text for _, text in world_captions("train", 200)]
    assert not ours & {*theirs}
    opens = {text.partition(" ")[0] for text in ours} - {text.partition(" ")[0] for text in theirs}
    assert {"What", "Late", "Early", "At"} <= opens


def test_the_filter_of_a_synthesis_gives_the_same_labels():
    captions = write_captions("coco2014", 100)
    plain = [type(caption)(caption.caption_id, caption.caption) for caption in captions]
    assert filter_captions(plain, load_vocabulary("coco2014")).kept == captions
