"""Captions as a run keeps them, section by section."""

import io

import pyarrow.parquet as pq
import pytest

from t2ipal.store import (
    Caption,
    Section,
    count_rejected,
    read_captions,
    read_rejected,
    read_sections,
    write_rejected,
    write_section,
    write_section_captions,
)


def stored_rows(store, key):
    return pq.read_table(io.BytesIO(store.read(key))).to_pylist()


def test_rejected_captions_are_counted_by_reason(store):
    assert count_rejected(store) == {}
    reasons = ["no class named", "not chosen", "no class named"]
    write_rejected(store, [Caption(f"{n}", "a house", reason=r) for n, r in enumerate(reasons)])
    assert count_rejected(store) == {"no class named": 2, "not chosen": 1}
    write_rejected(store, [])
    assert count_rejected(store) == {}
    store.write("rejected.parquet", b"PAR1")
    with pytest.raises(ValueError, match=r"rejected.parquet in .* is damaged"):
        count_rejected(store)


def test_captions_keep_their_labels_and_reasons(store):
    with pytest.raises(FileNotFoundError, match=r"No captions in .* Run jobs/synthesize.py first"):
        read_captions(store)
    with pytest.raises(FileNotFoundError):
        read_rejected(store)
    kept = [Caption("1", "a dog", (3,)), Caption("2", "a dog on a boat", (1, 3))]
    key = write_section_captions(store, 0, kept)
    rejected = [Caption("0", "a house", reason="no class")]
    write_rejected(store, rejected)
    write_section(store, 0, Section(0, 1, 0, 2, 0, 1, key))
    assert store.read("sections/00000.json").decode() == (
        f'{{\n "captions_key": "{key}",\n "extras_key": "",\n "first_caption": 0,\n'
        ' "first_k": 0,\n "first_shard": 0,\n "num_captions": 2,\n "num_extras": 0,\n'
        ' "num_k": 1,\n "num_shards": 1\n}\n'
    )
    assert read_captions(store) == kept
    assert read_rejected(store) == rejected
    assert stored_rows(store, key) == [
        {"caption_id": "1", "caption": "a dog", "labels": [3], "status": "kept", "reason": ""},
        {
            "caption_id": "2",
            "caption": "a dog on a boat",
            "labels": [1, 3],
            "status": "kept",
            "reason": "",
        },
    ]
    assert stored_rows(store, "rejected.parquet") == [
        {
            "caption_id": "0",
            "caption": "a house",
            "labels": [],
            "status": "rejected",
            "reason": "no class",
        }
    ]
    more = write_section_captions(store, 1, [Caption("9", "a cat", (2,))])
    write_section(store, 1, Section(1, 1, 2, 1, 0, 1, more))
    assert [caption.caption_id for caption in read_captions(store)] == ["1", "2", "9"]
    assert read_captions(store, read_sections(store)[:1]) == kept
    write_section(store, 1, Section(1, 1, 2, 1, 0, 7, more))  # the first writer stays
    assert [section.num_k for section in read_sections(store)] == [1, 1]
    store.write("sections/00001.json", b"{}")
    with pytest.raises(ValueError, match=r"sections/00001.json in .* is damaged"):
        read_sections(store)
