import json
from dataclasses import replace

import pytest
from tiny_language_model import write_tiny_language_model

from t2ipal.captions import (
    Vocabulary,
    filter_captions,
    load_vocabulary,
    read_captions,
    read_test_images,
)
from t2ipal.captions.language_model import SamplingConfig
from t2ipal.captions.tasks import WritingConfig
from t2ipal.captions.writing import write_captions
from t2ipal.captions.written import PART_TASKS, WritingWork, in_process, write_caption_file

PETS = Vocabulary("pets", ("dog", "cat"), ("dog", "cat"), ((), ()))
WORK = WritingWork("grammar", PETS)


def write(store, count, work=WORK, workers=in_process, name="captions.jsonl"):
    return write_caption_file(
        f"{store.uri}/{name}", work, count, workers, endpoint_url=store.endpoint_url
    )


def objects(store, leave_out="parts/"):
    return {key: store.read(key) for key in store.list() if leave_out not in key}


def test_a_caption_file_is_read_as_any_other(store):
    summary = write(store, 30)
    assert (summary["num_captions"], summary["num_missing"]) == (30, 0)
    uri = f"{store.uri}/captions.jsonl"
    captions = list(read_captions(uri, store.endpoint_url))
    ours = write_captions(PETS, 30)
    assert filter_captions(captions, PETS).kept == ours
    rows = [json.loads(line) for line in store.read("captions.jsonl").splitlines()]
    for row, caption in zip(rows, ours, strict=True):
        assert {*row["asked"]} <= {*row["labels"]}
        assert row["labels"] == [PETS.class_names[index] for index in caption.labels]
    refused = [
        json.loads(line) for line in store.read("captions.written/refused.jsonl").splitlines()
    ]
    assert len(refused) == summary["num_refused"] == sum(summary["reasons"].values())
    assert all(row["reason"] and row["asked"] for row in refused)
    # What lies beside it is no caption of a folder of captions.
    assert list(read_captions(store.uri, store.endpoint_url)) == captions


def test_written_captions_are_of_no_test_image(tmp_path, store):
    write(store, 5)
    (tmp_path / "test.json").write_text(json.dumps({"images": [{"id": 1}]}))
    images = read_test_images([str(tmp_path / "test.json")], "clean")
    uri = f"{store.uri}/captions.jsonl"
    captions = list(read_captions(uri, store.endpoint_url, test_images=images))
    assert len(captions) == 5 and not any(caption.reason for caption in captions)


def test_it_goes_on_where_it_was_killed(store):
    """Two parts are kept, and the outcome is that of one go."""
    count = 3 * PART_TASKS

    def dies(work, parts):
        for at, texts in enumerate(in_process(work, parts)):
            if at == 2:
                raise KeyboardInterrupt
            yield texts

    work = WritingWork("grammar", load_vocabulary("voc2007"))
    with pytest.raises(KeyboardInterrupt):
        write(store, count, work, dies, name="a/captions.jsonl")
    assert not store.exists("a/captions.jsonl")
    assert len(store.list("a/captions.written/parts/")) == 2
    summary = write(store, count, work, name="a/captions.jsonl")
    assert PART_TASKS <= summary["num_new_texts"] < 2 * PART_TASKS
    write(store, count, work, name="b/captions.jsonl")
    assert {k[2:]: v for k, v in objects(store).items() if k[0] == "a"} == {
        k[2:]: v for k, v in objects(store).items() if k[0] == "b"
    }
    assert write(store, count, work, name="a/captions.jsonl")["num_new_texts"] == 0


def test_a_larger_count_asks_for_what_is_missing(store):
    few, more = write(store, 40), write(store, 100)
    assert 0 < more["num_new_texts"] < few["num_new_texts"] + 40
    assert write(store, 100, name="other.jsonl")["num_captions"] == 100
    assert store.read("other.jsonl") == store.read("captions.jsonl")


def test_texts_of_another_request_are_refused(store):
    write(store, 5)
    with pytest.raises(ValueError, match=r"texts of another request \(seed: 0 there, 1 here\)"):
        write(store, 5, replace(WORK, config=WritingConfig(seed=1)))
    other = replace(WORK, vocabulary=replace(PETS, synonyms=(("pup",), ())))
    with pytest.raises(ValueError, match="texts of another request"):
        write(store, 5, other)
    # How many tries, and which texts are taken, may change.
    write(store, 5, replace(WORK, config=WritingConfig(max_tries=3, max_extra=0.0)))
    part = store.list("captions.written/parts/")[0]
    store.write(part, b"{")
    with pytest.raises(ValueError, match=r"is damaged\. Remove it and run jobs/write_captions.py"):
        write(store, 5)
    with pytest.raises(ValueError, match=r"ending of .*captions.txt"):
        write(store, 5, name="captions.txt")


def test_nonsense_of_a_language_model_is_kept_with_its_reasons(tmp_path, store):
    model = str(write_tiny_language_model(tmp_path / "model"))
    sampling = SamplingConfig(max_new_tokens=5)
    work = WritingWork(model, PETS, WritingConfig(max_tries=2), sampling)
    with pytest.raises(
        ValueError, match=r"No caption could be written\. 4 of 4 captions are missing"
    ):
        write(store, 4, work)
    assert not store.exists("captions.jsonl")
    lines = store.read("captions.written/refused.jsonl").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 8 and sorted(row["attempt"] for row in rows) == [0] * 4 + [1] * 4
    assert all(row["caption_id"].startswith("pets-model-0-000000") for row in rows)
