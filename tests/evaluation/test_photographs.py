import json
from pathlib import Path

import numpy as np
import pytest
from voc_tree import voc_tree, write

from t2ipal.captions import load_vocabulary
from t2ipal.evaluation.photographs import (
    PhotographSet,
    coco,
    coco_photographs,
    nuswide,
    voc2007,
)
from t2ipal.evaluation.test_sets import load_test_set
from t2ipal.store import Store

COCO = Path(__file__).parents[3] / "shared" / "data" / "coco"
needs_coco = pytest.mark.skipif(not COCO.is_dir(), reason=f"no MS-COCO data in {COCO}")


def test_voc2007(tmp_path):
    folder = voc_tree(tmp_path)
    test_set = voc2007(Store(tmp_path))
    dog, person, car = (test_set.class_names.index(name) for name in ("dog", "person", "car"))
    expected = np.zeros((3, 20), dtype=np.uint8)
    expected[0, [dog, person]] = 1
    np.testing.assert_array_equal(test_set.labels, expected)
    hard = np.zeros_like(expected)
    hard[1, car] = 1
    np.testing.assert_array_equal(test_set.difficult, hard)
    assert test_set.labels.dtype == test_set.difficult.dtype == np.uint8
    assert test_set.keys[1] == "VOC2007/JPEGImages/000002.jpg"
    inside = voc2007(Store(folder))
    assert [f"VOC2007/{key}" for key in inside.keys] == list(test_set.keys)


def test_voc2007_trainval(tmp_path):
    folder = voc_tree(tmp_path)
    write(folder / "ImageSets" / "Main" / "trainval.txt", "000004\n000001\n")
    test_set = voc2007(Store(tmp_path), "trainval")
    assert [key[-10:] for key in test_set.keys] == ["000004.jpg", "000001.jpg"]
    assert test_set.labels.sum(axis=1).tolist() == [0, 2]


def test_voc2007_bad_files(tmp_path):
    folder = voc_tree(tmp_path)
    annotation = folder / "Annotations" / "000001.xml"
    annotation.write_text("<annotation><object><name>dgo</name></object></annotation>")
    with pytest.raises(
        ValueError, match=r"Unknown class in .*000001\.xml 'dgo'\. Did you mean 'dog'"
    ):
        voc2007(Store(tmp_path))
    annotation.write_text("<annotation>")
    with pytest.raises(ValueError, match="no valid XML"):
        voc2007(Store(tmp_path))
    annotation.unlink()
    with pytest.raises(FileNotFoundError, match=r"No file .*000001\.xml"):
        voc2007(Store(tmp_path))


@pytest.mark.parametrize(
    "listed",
    [
        "\ufeff000001\r\n000002\r\n\r\n000004\r\n",
        "000001.jpg  \n000002.jpg\n000004.jpg\n000001.jpg\n",
        "000001 -1\n000002  1\n000004  0\n",
        "C:\\VOC2007\\JPEGImages\\000001.jpg\n./JPEGImages/000002.jpg\n/data/000004.jpg\n",
    ],
)
def test_lists_that_other_tools_wrote(tmp_path, listed):
    expected = voc2007(Store(voc_tree(tmp_path)))
    (tmp_path / "VOC2007" / "ImageSets" / "Main" / "test.txt").write_text(listed)
    test_set = voc2007(Store(tmp_path / "VOC2007"))
    assert test_set.keys == expected.keys
    np.testing.assert_array_equal(test_set.labels, expected.labels)
    np.testing.assert_array_equal(test_set.difficult, expected.difficult)


def test_voc_with_other_names(tmp_path):
    """An id with spaces, photographs that are no .jpg, and classes in other words."""
    folder = voc_tree(tmp_path)
    write(folder / "ImageSets" / "Main" / "test.txt", "my photo 1\nmy photo 2\n")
    for number, ending, name in ((1, "PNG", "Potted plant"), (2, "jpeg", " DOG ")):
        write(folder / "JPEGImages" / f"my photo {number}.{ending}", "")
        text = f"<annotation><object><name>{name}</name></object></annotation>"
        write(folder / "Annotations" / f"my photo {number}.xml", text)
    test_set = voc2007(Store(folder))
    assert test_set.keys == ("JPEGImages/my photo 1.PNG", "JPEGImages/my photo 2.jpeg")
    names = [test_set.class_names[column] for column in test_set.labels.argmax(axis=1)]
    assert names == ["pottedplant", "dog"] and test_set.labels.sum() == 2


def coco_tree(root: Path, **changes: object) -> Path:
    names = load_vocabulary("coco2014").class_names
    categories = [{"id": at + 1, "name": name} for at, name in enumerate(names)]
    content = {
        "images": [{"id": 5, "file_name": "b.jpg"}, {"id": 2, "file_name": "a.jpg"}],
        "categories": categories[::-1],
        "annotations": [
            {"image_id": 5, "category_id": 80, "iscrowd": 0},
            {"image_id": 5, "category_id": 1, "iscrowd": 1},
        ],
    }
    for name in ("a.jpg", "b.jpg"):
        write(root / "val2014" / name, "")
    return write(root / "annotations" / "instances_val2014.json", json.dumps(content | changes))


def test_coco(tmp_path):
    coco_tree(tmp_path)
    test_set = coco(Store(tmp_path), 2014)
    assert test_set.class_names == load_vocabulary("coco2014").class_names
    assert test_set.keys == ("val2014/a.jpg", "val2014/b.jpg")
    assert test_set.labels.sum(axis=1).tolist() == [0, 2]
    assert test_set.labels[1, [0, 79]].tolist() == [1, 1]
    assert not test_set.difficult.any()


def test_coco_as_other_tools_write_it(tmp_path):
    """Names with folders, categories in another order, and more of them than there are classes."""
    names = load_vocabulary("coco2014").class_names
    categories = [{"id": 0, "name": "objects"}]
    categories += [{"id": at, "name": name.title()} for at, name in enumerate(names[::-1], 1)]
    images = [{"id": "1", "file_name": "val2014\\a.jpg"}, {"id": 2, "file_name": "images/B.JPG"}]
    pairs = [(1, 80), (1, 0), (2, 1), (2, 2)]
    annotations = [{"image_id": image, "category_id": category} for image, category in pairs]
    coco_tree(tmp_path, categories=categories, images=images, annotations=annotations)
    test_set = coco(Store(tmp_path), 2014)
    assert test_set.keys == ("val2014/a.jpg", "val2014/b.jpg")
    assert [np.flatnonzero(row).tolist() for row in test_set.labels] == [[0], [78, 79]]
    assert test_set.origin.endswith("has categories that are no classes here: objects.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [{"image_id": 9, "category_id": 1}]}, r"annotations\[0\] names an image"),
        (
            {"categories": [{"id": 1, "name": "person"}], "annotations": []},
            r"must hold MS-COCO's 80 categories, got 1: none is called bicycle, car, .* \.\.\.\.",
        ),
        ({"images": None}, "instances with a list 'images'"),
        ({"images": [], "annotations": []}, "lists no image"),
    ],
)
def test_coco_bad_file(tmp_path, changes, message):
    coco_tree(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        coco(Store(tmp_path), 2014)


def test_missing_images_are_counted(tmp_path):
    coco_tree(tmp_path)
    (tmp_path / "val2014" / "b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 2 images, first .*b\.jpg"):
        coco(Store(tmp_path), 2014)


def test_coco_train_in_the_order_of_the_json(tmp_path):
    json_file = coco_tree(tmp_path)
    (tmp_path / "val2014").rename(tmp_path / "train2014")
    json_file.rename(json_file.with_name("instances_train2014.json"))
    test_set = coco(Store(tmp_path), 2014, "train")
    assert test_set.keys == ("train2014/b.jpg", "train2014/a.jpg")
    assert test_set.labels.sum(axis=1).tolist() == [2, 0]


@needs_coco
@pytest.mark.parametrize("side", ["train", "val"])
def test_labels_of_coco_are_those_of_the_json(tmp_path, side):
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / f"instances_{side}2017.json"
    file.symlink_to(COCO / "annotations" / f"instances_{side}2017_mini.json")
    (tmp_path / f"{side}2017").symlink_to(COCO / f"{side}2017")
    name = {"train": "coco2017_train", "val": "coco2017"}[side]
    test_set = load_test_set(name, str(tmp_path))
    content = json.loads(file.read_text())
    names = {each["id"]: each["name"] for each in content["categories"]}
    shown = {image["file_name"]: set() for image in content["images"]}
    by_id = {image["id"]: image["file_name"] for image in content["images"]}
    for each in content["annotations"]:
        shown[by_id[each["image_id"]]].add(names[each["category_id"]])
    photographs = test_set.images
    assert isinstance(photographs, PhotographSet)
    found = [key.rpartition("/")[2] for key in photographs.keys]
    assert sorted(found) == sorted(shown) and len(found) > 20
    if side == "train":
        assert found == [*shown]
    for file_name, row in zip(found, test_set.labels, strict=True):
        named = {test_set.class_names[column] for column in np.flatnonzero(row)}
        assert named == shown[file_name], file_name


@needs_coco
def test_coco_mini():
    instances = "annotations/instances_val2017_mini.json"
    names = load_vocabulary("coco2014").class_names
    test_set = coco_photographs(Store(COCO), instances, "val2017/", names)
    assert test_set.labels.shape == (25, 80)
    row = test_set.keys.index("val2017/000000377575.jpg")
    named = [test_set.class_names[column] for column in np.flatnonzero(test_set.labels[row])]
    assert named == ["fire hydrant", "dog"]


@pytest.mark.parametrize("labels_folder", ["TrainTestLabels", "Groundtruth/TrainTestLabels"])
def test_nuswide(tmp_path, labels_folder):
    names = load_vocabulary("nuswide").class_names
    write(tmp_path / "ImageList" / "TestImagelist.txt", "\ufeffactor\\1.jpg \r\n\r\nzoo\\2.jpg\r\n")
    for name in ("actor/1.jpg", "zoo/2.jpg"):
        write(tmp_path / "Flickr" / name, "")
    for name in names:
        value = int(name in ("zebra", "animal"))
        write(tmp_path / labels_folder / f"Labels_{name}_Test.txt", f"0\n{value}\n")
    test_set = nuswide(Store(tmp_path))
    assert test_set.keys[0] == "Flickr/actor/1.jpg"
    assert [names[column] for column in np.flatnonzero(test_set.labels[1])] == ["animal", "zebra"]
    assert test_set.labels.shape == (2, 81) and not test_set.labels[0].any()
    write(tmp_path / "ImageList" / "TrainImagelist.txt", "zoo\\2.jpg\n")
    for name in names:
        write(tmp_path / labels_folder / f"Labels_{name}_Train.txt", f"{int(name == 'bear')}\n")
    train = nuswide(Store(tmp_path), "Train")
    assert train.keys == ("Flickr/zoo/2.jpg",)
    assert [names[column] for column in np.flatnonzero(train.labels[0])] == ["bear"]
    write(tmp_path / labels_folder / "Labels_bear_Test.txt", "0\n")
    with pytest.raises(
        ValueError, match=r"Labels_bear_Test.txt must hold 2 lines of 0 or 1.* got 1"
    ):
        nuswide(Store(tmp_path))


def test_in_a_bucket_as_in_a_folder(store, tmp_path):
    coco_tree(tmp_path / "made")
    for path in (tmp_path / "made").rglob("*.*"):
        store.write(path.relative_to(tmp_path / "made").as_posix(), path.read_bytes())
    test_set = coco(store, 2014)
    assert test_set.store is store
    assert test_set.keys == ("val2014/a.jpg", "val2014/b.jpg")
