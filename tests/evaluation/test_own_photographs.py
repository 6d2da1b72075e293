import json
import os
from pathlib import Path

import pytest

from t2ipal.captions import load_vocabulary
from t2ipal.evaluation.own_photographs import own_photographs

COCO = Path(__file__).parents[3] / "shared" / "data" / "coco"
needs_coco = pytest.mark.skipif(not COCO.is_dir(), reason=f"no MS-COCO data in {COCO}")
NAMES = ("dog", "cat", "pottedplant")


@pytest.fixture
def put(store):
    """Writes files of a text each."""

    def write(**files):
        for key, text in files.items():
            store.write(key, (text if isinstance(text, str) else json.dumps(text)).encode())

    return write


def read(store, name=""):
    photographs = own_photographs(f"{store.uri}/{name}".rstrip("/"), NAMES, store.endpoint_url)
    assert photographs.class_names == NAMES and not photographs.difficult.any()
    rows = zip(photographs.keys, photographs.labels, strict=True)
    return {key: [n for n, one in zip(NAMES, row) if one] for key, row in rows}, photographs.origin


INSTANCES = {
    "images": [{"id": 4, "file_name": "b.jpg"}, {"id": 2, "file_name": "a.jpg"}],
    "categories": [
        {"id": 9, "name": "Potted Plant"},
        {"id": 1, "name": "zebra"},
        {"id": 5, "name": "dog"},
    ],
    "annotations": [
        {"image_id": 4, "category_id": 9},
        {"image_id": 4, "category_id": 1},
        {"image_id": 2, "category_id": 5},
    ],
}


def test_a_csv(store, put):
    put(**{"labels.csv": "file,labels\npics/a.jpg,dog;cat\nb.png,\n./pics/a.jpg,dog\n"})
    put(**{"pics/a.jpg": "", "b.png": "", "other.csv": "", "dog/x.jpg": ""})
    found, said = read(store)
    assert found == {"pics/a.jpg": ["dog", "cat"], "b.png": []}
    assert said.startswith(
        f"Test set: 2 photographs, 1 of them without a class, labelled by {store.uri}/labels.csv "
        "(columns file and labels). Looked for, in this order: labels.csv"
    )


def test_a_single_csv_with_names_of_files_alone(store, put):
    put(**{"truth.csv": "image,dog,cat\na.jpg,1,0\n", "deep/below/a.jpg": "", "x.json": "{}"})
    assert read(store)[0] == {"deep/below/a.jpg": ["dog"]}
    put(**{"other/a.jpg": ""})
    with pytest.raises(ValueError, match=r"a.jpg in .* may be deep/below/a.jpg or other/a.jpg"):
        read(store)


def test_which_csv(store, put):
    put(**{"a.csv": "file,labels\na.jpg,dog\n", "b.csv": "file,labels\na.jpg,cat\n", "a.jpg": ""})
    with pytest.raises(ValueError, match=r"holds 2 csv files \(a.csv, b.csv\): call the one"):
        read(store)
    found, said = read(store, "b.csv")
    assert found == {"a.jpg": ["cat"]} and "Looked for" not in said


def test_predictions_are_no_labels(store, put):
    put(**{"p.csv": "file,labels,scores,status\na.jpg,dog,0.5,ok\n", "a.jpg": ""})
    with pytest.raises(ValueError, match=r"p.csv holds predictions"):
        read(store)
    assert read(store, "p.csv")[0] == {"a.jpg": ["dog"]}


def test_a_csv_of_another_machine(store, put):
    """Excel's tab-separated text in UTF-16, with Windows' paths, in another case or cut short."""
    text = "Image\tTags\r\nC:\\pictures\\A.JPG\tdog\r\nb\tcat, dog\r\n"
    store.write("labels.tsv", text.encode("utf-16"))
    put(**{"pictures/a.jpg": "", "pictures/b.png": "", "other/c.jpg": ""})
    assert read(store)[0] == {"pictures/a.jpg": ["dog"], "pictures/b.png": ["dog", "cat"]}


@pytest.mark.parametrize("place", ["annotations/instances.json", "labels.json"])
def test_coco_instances(store, put, place):
    put(**{place: INSTANCES, "images/a.jpg": "", "images/b.jpg": "", "annotations/x.json": "[]"})
    found, said = read(store)
    assert found == {"images/a.jpg": ["dog"], "images/b.jpg": ["pottedplant"]}
    assert "2 of 3 categories are classes here; left out: zebra)" in said
    assert read(store, place)[0] == found


def test_instances_without_annotations(store, put):
    put(**{"a.json": {**INSTANCES, "annotations": None}, "a.jpg": "", "b.jpg": ""})
    assert read(store)[0] == {"a.jpg": [], "b.jpg": []}


def test_one_file_under_two_ids(store, put):
    images = [{"id": 4, "file_name": "a.jpg"}, {"id": 2, "file_name": "x/a.jpg"}]
    put(**{"a.json": {**INSTANCES, "images": images}, "a.jpg": ""})
    assert read(store)[0] == {"a.jpg": ["dog", "pottedplant"]}


def test_which_instances(store, put):
    put(**{"a.json": INSTANCES, "annotations/b.json": INSTANCES, "a.jpg": "", "b.jpg": ""})
    with pytest.raises(ValueError, match=r"2 files of COCO instances \(a.json, annotations/b.json"):
        read(store)
    assert len(read(store, "a.json")[0]) == 2


def test_instances_of_no_known_class(store, put):
    put(**{"a.json": {**INSTANCES, "categories": [{"id": 1, "name": "dgo"}], "annotations": []}})
    with pytest.raises(ValueError, match=r"Unknown class in .*a.json 'dgo'. Did you mean 'dog'"):
        read(store)


def test_a_folder_for_each_class(store, put):
    put(**{"dog/b.JPG": "", "Potted plant/a.png": "", "dog/notes.txt": "", "dog/deep/c.jpg": ""})
    put(**{"a.jpg": "", "empty/readme.md": "", "dog/.thumbnails/b.jpg": "", "dog/Thumbs.db": ""})
    found, said = read(store)
    assert found == {
        "Potted plant/a.png": ["pottedplant"], "dog/b.JPG": ["dog"], "dog/deep/c.jpg": ["dog"],
    }  # fmt: skip
    how = "2 folders, one class each; left out: 1 photographs beside them"
    assert f"labelled by {store.uri} ({how})" in said
    put(**{"dgo/a.jpg": ""})
    with pytest.raises(ValueError, match=r"class in the folders of .* 'dgo'. Did you mean 'dog'"):
        read(store)


def test_folders_of_classes_in_one_folder(store, put):
    put(**{"test/dog/a.jpg": "", "test/cat/b.jpg": ""})
    assert read(store)[0] == {"test/cat/b.jpg": ["cat"], "test/dog/a.jpg": ["dog"]}
    put(**{"train/dog/a.jpg": ""})
    message = "classes in several places, as test/dog/a.jpg, train/dog/a.jpg: give the path of one"
    with pytest.raises(ValueError, match=message):
        read(store)
    assert read(store, "train")[0] == {"dog/a.jpg": ["dog"]}


def test_missing_photographs_are_named(store, put):
    put(**{"labels.csv": "file,labels\na.jpg,dog\nb.jpg,dog\nc/d.jpg,cat\n", "a.jpg": ""})
    with pytest.raises(FileNotFoundError, match=r"lacks 2 of 3 images, first b.jpg, c/d.jpg"):
        read(store)


def test_nothing_there(store, put, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No labelled photographs in .* Looked for: label"):
        read(store)
    put(**{"labels.csv": "file,labels\n"})
    with pytest.raises(ValueError, match="lists no image"):
        read(store)
    put(**{"labels.csv": "file,labels\n"})
    with pytest.raises(ValueError, match="need class names"):
        own_photographs(str(tmp_path), ())
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        read(store, "none.csv")


def test_a_csv_that_is_no_text(store):
    store.write("labels.csv", b"file,labels\n\xe9.jpg\n")
    message = r"labels.csv must be text in UTF-8, got byte 0xe9 in line 2\. Save it as UTF-8"
    with pytest.raises(ValueError, match=message):
        read(store)


@needs_coco
def test_real_instances():
    path = os.path.relpath(COCO / "annotations" / "instances_val2017_mini.json")
    names = load_vocabulary("coco2014").class_names
    photographs = own_photographs(path, names[::-1])
    assert photographs.labels.shape == (25, 80) and "80 of 80 categories" in photographs.origin
    row = photographs.keys.index("val2017/000000377575.jpg")
    named = {names[::-1][column] for column in photographs.labels[row].nonzero()[0]}
    assert named == {"fire hydrant", "dog"}
