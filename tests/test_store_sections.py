"""Captions as a run keeps them, section by section."""

import pytest

from t2ipal.captions import LabelledCaption, RejectedCaption
from t2ipal.store import (
    Section,
    read_sections,
    read_stored_captions,
    write_rejected,
    write_section,
    write_section_captions,
)


def test_captions_keep_their_labels_and_reasons(store):
    with pytest.raises(FileNotFoundError, match=r"No captions in .* Run jobs/synthesize.py first"):
        read_stored_captions(store)
    kept = [LabelledCaption("1", "a dog", (3,)), LabelledCaption("2", "a dog on a boat", (1, 3))]
    key = write_section_captions(store, 0, kept)
    write_rejected(store, [RejectedCaption("0", "a house", "no class")])
    write_section(store, 0, Section(0, 1, 0, 2, 0, 1, key))
    assert read_stored_captions(store).to_pylist() == [
        {"caption_id": "1", "caption": "a dog", "labels": [3], "status": "kept", "reason": ""},
        {
            "caption_id": "2",
            "caption": "a dog on a boat",
            "labels": [1, 3],
            "status": "kept",
            "reason": "",
        },
    ]
    assert read_stored_captions(store, "rejected").to_pylist()[0]["reason"] == "no class"
    assert read_stored_captions(store, "all").num_rows == 3
    with pytest.raises(ValueError, match=r"Did you mean 'kept'"):
        read_stored_captions(store, "keep")
    more = write_section_captions(store, 1, [LabelledCaption("9", "a cat", (2,))])
    write_section(store, 1, Section(1, 1, 2, 1, 0, 1, more))
    assert read_stored_captions(store)["caption_id"].to_pylist() == ["1", "2", "9"]
    write_section(store, 1, Section(1, 1, 2, 1, 0, 7, more))  # the first writer stays
    assert [section.num_k for section in read_sections(store)] == [1, 1]
    store.write("sections/00001.json", b"{}")
    with pytest.raises(ValueError, match=r"sections/00001.json in .* is damaged"):
        read_sections(store)
