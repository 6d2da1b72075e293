import json
from pathlib import Path

import numpy as np
import pytest

from t2ipal import benchmarks
from t2ipal.captions import load_vocabulary

COCO = Path(__file__).parents[2] / "shared" / "data" / "coco"
needs_coco = pytest.mark.skipif(not COCO.is_dir(), reason=f"no MS-COCO data in {COCO}")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def voc_tree(root: Path) -> Path:
    folder = root / "VOC2007"
    objects = {
        "000001": [("dog", 0), ("person", 1), ("person", 0)],
        "000002": [("car", 1)],
        "000004": [],
    }
    for image_id, named in objects.items():
        body = "".join(
            f"<object><name>{name}</name><difficult>{hard}</difficult></object>"
            for name, hard in named
        )
        write(folder / "Annotations" / f"{image_id}.xml", f"<annotation>{body}</annotation>")
        write(folder / "JPEGImages" / f"{image_id}.jpg", "")
    write(folder / "ImageSets" / "Main" / "test.txt", "000001\n000002\n000004\n")
    return folder


def test_voc2007(tmp_path):
    folder = voc_tree(tmp_path)
    test_set = benchmarks.load_test_set("voc2007", tmp_path)
    assert (test_set.name, test_set.vocabulary) == ("voc2007", "voc2007")
    dog, person, car = (test_set.class_names.index(name) for name in ("dog", "person", "car"))
    expected = np.zeros((3, 20), dtype=np.uint8)
    expected[0, [dog, person]] = 1
    np.testing.assert_array_equal(test_set.labels, expected)
    hard = np.zeros_like(expected)
    hard[1, car] = 1
    np.testing.assert_array_equal(test_set.difficult, hard)
    assert test_set.labels.dtype == test_set.difficult.dtype == np.uint8
    assert test_set.image_paths[1] == str(folder / "JPEGImages" / "000002.jpg")
    assert benchmarks.load_test_set("voc2007", folder).image_paths == test_set.image_paths


def test_voc2007_bad_files(tmp_path):
    folder = voc_tree(tmp_path)
    annotation = folder / "Annotations" / "000001.xml"
    annotation.write_text("<annotation><object><name>dgo</name></object></annotation>")
    with pytest.raises(
        ValueError, match=r"Unknown class in .*000001\.xml 'dgo'\. Did you mean 'dog'"
    ):
        benchmarks.load_test_set("voc2007", tmp_path)
    annotation.write_text("<annotation>")
    with pytest.raises(ValueError, match="no valid XML"):
        benchmarks.load_test_set("voc2007", tmp_path)
    annotation.unlink()
    with pytest.raises(FileNotFoundError, match=r"No file .*000001\.xml"):
        benchmarks.load_test_set("voc2007", tmp_path)


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
    test_set = benchmarks.load_test_set("coco2014", tmp_path)
    assert test_set.class_names == load_vocabulary("coco2014").class_names
    assert [Path(path).name for path in test_set.image_paths] == ["a.jpg", "b.jpg"]
    assert test_set.labels.sum(axis=1).tolist() == [0, 2]
    assert test_set.labels[1, [0, 79]].tolist() == [1, 1]
    assert not test_set.difficult.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [{"image_id": 9, "category_id": 1}]}, r"annotations\[0\] names an image"),
        ({"categories": [{"id": 1, "name": "person"}]}, "must hold MS-COCO's 80 categories, got 1"),
        ({"images": None}, "instances with a list 'images'"),
        ({"images": [], "annotations": []}, "lists no image"),
    ],
)
def test_coco_bad_file(tmp_path, changes, message):
    coco_tree(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        benchmarks.load_test_set("coco2014", tmp_path)


def test_missing_images_are_counted(tmp_path):
    coco_tree(tmp_path)
    (tmp_path / "val2014" / "b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 2 images, first .*b\.jpg"):
        benchmarks.load_test_set("coco2014", tmp_path)


@needs_coco
def test_coco_mini():
    test_set = benchmarks.coco_test_set(
        COCO / "annotations" / "instances_val2017_mini.json", COCO / "val2017", "coco2017"
    )
    assert test_set.labels.shape == (25, 80)
    row = [Path(path).stem for path in test_set.image_paths].index("000000377575")
    named = [test_set.class_names[column] for column in np.flatnonzero(test_set.labels[row])]
    assert named == ["fire hydrant", "dog"]


@pytest.mark.parametrize("labels_folder", ["TrainTestLabels", "Groundtruth/TrainTestLabels"])
def test_nuswide(tmp_path, labels_folder):
    names = load_vocabulary("nuswide").class_names
    write(tmp_path / "ImageList" / "TestImagelist.txt", "actor\\1.jpg\r\nzoo\\2.jpg\r\n")
    for name in ("actor/1.jpg", "zoo/2.jpg"):
        write(tmp_path / "Flickr" / name, "")
    for name in names:
        value = int(name in ("zebra", "animal"))
        write(tmp_path / labels_folder / f"Labels_{name}_Test.txt", f"0\n{value}\n")
    test_set = benchmarks.load_test_set("nuswide", tmp_path)
    assert test_set.image_paths[0] == str(tmp_path / "Flickr" / "actor" / "1.jpg")
    assert [names[column] for column in np.flatnonzero(test_set.labels[1])] == ["animal", "zebra"]
    assert test_set.labels.shape == (2, 81) and not test_set.labels[0].any()
    write(tmp_path / labels_folder / "Labels_bear_Test.txt", "0\n")
    with pytest.raises(
        ValueError, match=r"Labels_bear_Test.txt must hold 2 lines of 0 or 1.* got 1"
    ):
        benchmarks.load_test_set("nuswide", tmp_path)


def test_unknown_test_set(tmp_path):
    with pytest.raises(ValueError, match=r"Unknown test set 'voc2012'\. Did you mean 'voc2007'"):
        benchmarks.load_test_set("voc2012", tmp_path)


def test_published():
    def find(setting: str, method: str, test_set: str, **fields: object) -> list[float]:
        return [
            row.mAP
            for row in benchmarks.PUBLISHED
            if (row.setting, row.method, row.test_set) == (setting, method, test_set)
            and all(getattr(row, name) == value for name, value in fields.items())
        ]

    assert find("zero_shot", "T2I-PAL", "coco2014", backbone="RN101") == [71.4]
    assert find("zero_shot", "TaI-DPT", "nuswide", backbone="RN50") == [46.5]
    assert find("partial_labels", "SARB", "voc2007", amount=90) == [92.9]
    assert find("few_shot", "CoOp + T2I-PAL", "coco2014", amount=16) == [74.1]
    assert find("novel_classes", "T2I-PAL", "coco2014", amount=0) == [66.3]
    assert len(set(benchmarks.PUBLISHED)) == len(benchmarks.PUBLISHED)
    for method in ("SARB", "DualCoOp (rerun)", "DualCoOp + TaI-DPT"):
        values = find("partial_labels", method, "coco2014")
        (mean,) = find("partial_labels_mean", method, "coco2014")
        assert len(values) == 9 and np.mean(values) == pytest.approx(mean, abs=0.06)
