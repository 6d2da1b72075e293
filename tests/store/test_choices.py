"""Choices among a run's images, and what is stored of them."""

import io

import pyarrow.parquet as pq
import pytest

from t2ipal.store import (
    ChoiceManifest,
    ChoiceRow,
    json_bytes,
    read_choice,
    read_choice_manifest,
    write_choice,
)
from t2ipal.store.choices import CHOICE_SCHEMA

ROWS = [
    ChoiceRow("00000-00000", "a", 0, 0.25, (1, 3), (), "", True),
    ChoiceRow("00000-00001", "a", 1, 0.5, (), (1, 3), "00000-00000", False),
]


def test_a_choice_comes_back(store):
    message = r"No choice 'best' of images in .*; there is none. Run jobs/choose.py first."
    with pytest.raises(FileNotFoundError, match=message):
        read_choice(store, "best")
    write_choice(store, "best", ROWS, {"min_found": 0.5})
    assert read_choice(store, "best") == ROWS
    assert read_choice_manifest(store, "best") == ChoiceManifest({"min_found": 0.5}, 2, 1)
    with pytest.raises(FileNotFoundError, match=r"'bets' of images in .*; there is best. Run"):
        read_choice_manifest(store, "bets")
    for name in ("", "a b", "../a"):
        with pytest.raises(ValueError, match="name must be one word of letters, digits, - and _"):
            write_choice(store, name, ROWS, {})


def test_a_choice_is_stored_as_it_always_was(store):
    write_choice(store, "best", ROWS, {"min_found": 0.5, "twins": [1, 2]})
    assert store.read("manifests/best.json") == (
        b'{\n "num_images": 2,\n "num_kept": 1,\n "settings": {\n  "min_found": 0.5,\n'
        b'  "twins": [\n   1,\n   2\n  ]\n }\n}\n'
    )
    table = pq.read_table(io.BytesIO(store.read("manifests/best.parquet")))
    assert table.schema == CHOICE_SCHEMA
    assert table.to_pylist()[0] == {
        "key": "00000-00000",
        "caption_id": "a",
        "k": 0,
        "similarity": 0.25,
        "found": [1, 3],
        "missing": [],
        "twin_of": "",
        "kept": True,
    }
    settings = {"settings": {}, "num_images": 2, "num_kept": 1}
    store.write("manifests/best.json", json_bytes({**settings, "of_later": 1}))
    assert read_choice(store, "best") == ROWS
    store.write("manifests/best.json", json_bytes({**settings, "num_kept": "1"}))
    with pytest.raises(ValueError, match=r"manifests/best.json in .* is damaged. Run jobs/choose"):
        read_choice(store, "best")
