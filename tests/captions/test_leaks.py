import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2ipal.captions import Caption, read_captions, read_test_images
from t2ipal.captions.leaks import LEAK, UNKNOWN, image_of


@pytest.fixture
def test_set(tmp_path):
    """Images 9 and 25 of val2014."""
    path = tmp_path / "instances_val2014.json"
    images = [{"id": 9, "file_name": "COCO_val2014_000000000009.jpg"}, {"id": "25"}]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    return str(path)


def write(folder, name, content):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder / name)


@pytest.mark.parametrize(
    ("value", "image"),
    [
        (9, 9),
        (9.0, 9),
        ("9", 9),
        ("9.0", 9),
        ("000000000009", 9),
        ("000000000009.jpg", 9),
        ("val2014/COCO_val2014_000000000009.JPG#3", 9),
        ("000026e7ee790996", "000026e7ee790996"),
        ("2007_000027.jpg", "2007_000027"),
        ("", None),
        (None, None),
        (float("nan"), None),
        (True, None),
        ([9], None),
    ],
)
def test_one_id_for_an_image(value, image):
    assert image_of(value) == image


FOUR = ["a dog", "a cat", "a bus", "a car"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "a.json",
            {
                "annotations": [
                    {"id": at, "image_id": image, "caption": text}
                    for at, (image, text) in enumerate(zip([9, 8, 25, 9], FOUR))
                ]
            },
        ),
        (
            "karpathy.json",
            {
                "images": [
                    {"filename": f"COCO_val2014_{i:012d}.jpg", "cocoid": i, "sentences": [
                        {"raw": text, "sentid": at}]}
                    for at, (i, text) in enumerate(zip([9, 8, 25, 9], FOUR))
                ]
            },
        ),
        (
            "narratives.jsonl",
            "".join(
                json.dumps({"image_id": image, "annotator_id": at, "caption": text}) + "\n"
                for at, (image, text) in enumerate(zip(["9", "8", "25", "9"], FOUR))
            ),
        ),
        ("a.csv", "id,file_name,caption\n0,9.jpg,a dog\n1,8.jpg,a cat\n2,25.jpg,a bus\n"
         "3,9.jpg,a car\n"),
        ("a.token", "9.jpg#0\ta dog\n8.jpg#0\ta cat\n25.jpg#0\ta bus\n9.jpg#1\ta car\n"),
        ("by_image.json", {"9.jpg": ["a dog", "a car"], "8.jpg": "a cat", "25.jpg": ["a bus"]}),
        ("a.parquet", None),
    ],
)  # fmt: skip
def test_captions_of_test_images_are_left_out_of_every_format(tmp_path, test_set, name, content):
    if content is None:
        path = str(tmp_path / name)
        pq.write_table(pa.table({"image_id": [9, 8, 25, 9], "caption": FOUR}), path)
    else:
        path = write(tmp_path, name, content)
    told: list[str] = []
    clean = read_test_images([test_set], "clean")
    captions = list(read_captions(path, tell=told.append, test_images=clean))
    assert sorted((row.caption, row.reason) for row in captions) == [
        ("a bus", LEAK),
        ("a car", LEAK),
        ("a cat", ""),
        ("a dog", LEAK),
    ]
    assert told[-1] == ("3 of 4 captions are of the images of instances_val2014.json: left out.")
    ancestor = read_test_images([test_set], "ancestor")
    kept = list(read_captions(path, tell=told.append, test_images=ancestor))
    assert kept == list(read_captions(path)) and not any(row.reason for row in kept)
    assert told[-1].endswith("json: kept, as the ancestor did.")


def test_a_caption_of_no_image_is_left_out_too(tmp_path, test_set):
    rows = [{"id": 1, "image_id": 8, "caption": "a dog"}, {"id": 2, "caption": "a cat"}]
    path = write(tmp_path, "a.json", {"annotations": rows})
    told: list[str] = []
    images = read_test_images([test_set], "clean")
    captions = list(read_captions(path, tell=told.append, test_images=images))
    assert captions == [Caption("1", "a dog"), Caption("2", "a cat", reason=UNKNOWN)]
    assert "0 of 2 captions are of the images of" in told[-1]
    assert "and 1 name no image: left out" in told[-1]


def test_files_that_cannot_be_told_apart(tmp_path, test_set):
    images = read_test_images([test_set], "clean")
    with pytest.raises(ValueError, match=r"must name the image of each caption .* none is named"):
        list(read_captions(write(tmp_path, "a.txt", "a dog\na cat\n"), test_images=images))
    rows = {"annotations": [{"id": 1, "image_id": 9, "caption": "a dog"}]}
    with pytest.raises(ValueError, match="nothing remains to train on"):
        list(read_captions(write(tmp_path, "a.json", rows), test_images=images))


def test_lists_of_test_images(tmp_path):
    assert read_test_images([], "clean") is None
    plain = write(tmp_path, "ids.json", [9, "COCO_val2014_000000000025.jpg"])
    images = read_test_images([plain], "ancestor")
    assert images is not None and images.images == {9, 25}
    facts = images.facts()
    assert (facts["mode"], facts["files"], facts["num_images"]) == ("ancestor", ["ids.json"], 2)
    with pytest.raises(ValueError, match='must hold a list "images"'):
        read_test_images([write(tmp_path, "bad.json", {"annotations": []})], "clean")
    with pytest.raises(ValueError, match=r"image 0 must have an id, got \{\}"):
        read_test_images([write(tmp_path, "bad.json", {"images": [{}]})], "clean")
    with pytest.raises(ValueError, match="is no valid JSON"):
        read_test_images([write(tmp_path, "bad.json", "{")], "clean")
    with pytest.raises(FileNotFoundError):
        read_test_images([str(tmp_path / "none.json")], "clean")
