import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from t2ipal.captions import Caption, Vocabulary, filter_captions, load_vocabulary, read_captions

ROOT = Path(__file__).parents[2]
COCO = Path(__file__).parents[3] / "shared" / "data" / "coco"
needs_coco = pytest.mark.skipif(not COCO.is_dir(), reason=f"no MS-COCO data in {COCO}")
PETS = Vocabulary("pets", ("dog", "cat", "fish"), ("dog", "cat", "fish"), ((), ("kitten",), ()))


def captions(*texts: str) -> list[Caption]:
    return [Caption(str(at), text) for at, text in enumerate(texts)]


def test_kept_and_rejected_keep_their_order():
    result = filter_captions(captions("a tree", "a cat and a dog", "no dog", "kittens", ""), PETS)
    assert [(row.caption_id, row.caption, row.labels) for row in result.kept] == [
        ("1", "a cat and a dog", (0, 1)),
        ("3", "kittens", (1,)),
    ]
    assert [(row.caption_id, row.reason) for row in result.rejected] == [
        ("0", "no class named"),
        ("2", "only negated: dog"),
        ("4", "empty"),
    ]
    assert result.reasons() == {"no class named": 1, "only negated": 1, "empty": 1}


def test_choice_depends_on_ids_and_seed_alone():
    many = captions(*["a dog"] * 200)
    chosen = filter_captions(many, PETS, num_captions=50, seed=1)
    ids = [row.caption_id for row in chosen.kept]
    assert len(ids) == 50
    assert ids == sorted(ids, key=int)
    assert chosen.reasons() == {"not chosen": 150}
    mixed = random.Random(0).sample(many, len(many))
    assert {row.caption_id for row in filter_captions(mixed, PETS, 50, 1).kept} == set(ids)
    assert {row.caption_id for row in filter_captions(many, PETS, 20, 1).kept} < set(ids)
    assert {row.caption_id for row in filter_captions(many, PETS, 50, 2).kept} != set(ids)
    assert len(filter_captions(many, PETS, 500).kept) == 200


def test_order_of_captions_changes_no_verdict():
    some = captions("a dog", "a hot dog", "a cat", "no cat", "fish")
    turned = filter_captions(some[::-1], PETS)
    plain = filter_captions(some, PETS)
    assert turned.kept == plain.kept[::-1]
    assert turned.rejected == plain.rejected[::-1]


def test_max_per_class_counts_the_rarest_class():
    # dog 5, cat 3, fish 1: "dog and cat" counts for cat, "fish and dog" for fish.
    texts = ["a dog", "a dog and a cat", "a dog", "a cat", "a dog and a cat", "a fish and a dog"]
    result = filter_captions(captions(*texts), PETS, max_per_class=1)
    assert [row.caption_id for row in result.kept] == ["0", "1", "5"]
    assert [(row.caption_id, row.reason) for row in result.rejected] == [
        ("2", "class full: dog"),
        ("3", "class full: cat"),
        ("4", "class full: cat"),
    ]


def test_a_row_that_could_not_be_read_stays_rejected():
    rows = [Caption("1", "", reason="no caption"), Caption("2", "a dog")]
    result = filter_captions(rows, PETS)
    assert result.rejected == rows[:1]
    assert result.num_named == (1, 0, 0)


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_captions must be > 0, got 0"):
        filter_captions(captions("a dog"), PETS, num_captions=0)
    with pytest.raises(ValueError, match="max_per_class must be > 0, got -1"):
        filter_captions(captions("a dog"), PETS, max_per_class=-1)


def test_nothing_passes():
    message = r"No caption names a class of vocabulary 'pets' \(2 x no class named\)"
    with pytest.raises(ValueError, match=message):
        filter_captions(captions("a tree", "a house"), PETS)
    with pytest.raises(ValueError, match="no captions came"):
        filter_captions([], PETS)


@needs_coco
def test_real_captions():
    path = COCO / "annotations" / "captions_val2017.json"
    everything = list(read_captions(path))
    assert len(everything) == 25_014
    result = filter_captions(everything, load_vocabulary("voc2007"), num_captions=400)
    assert len(result.kept) == 400
    assert len(result.rejected) == len(everything) - 400


@needs_coco
def test_precision_on_coco_labels():
    """The floors lie some two points under what is measured: 96.4 and 97.4 percent a caption."""
    command = [sys.executable, str(ROOT / "benchmarks" / "captions.py"), "--coco", str(COCO)]
    output = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    ).stdout
    summary = json.loads(output.splitlines()[-1])
    assert summary["num_captions"] == 255
    assert summary["voc2007"]["caption"]["precision"] > 94.5
    assert summary["voc2007"]["caption"]["recall"] > 41.5
    assert summary["coco2014"]["caption"]["precision"] > 95.5
    assert summary["coco2014"]["caption"]["recall"] > 33.5
    assert summary["coco2014"]["image"]["precision"] > 90
