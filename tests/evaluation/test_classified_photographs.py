from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from voc_tree import write

from t2ipal.captions import load_vocabulary
from t2ipal.evaluation.classified_photographs import awa2, flowers102, food101
from t2ipal.evaluation.test_sets import load_test_set
from t2ipal.store import Store


def flowers_tree(root: Path) -> Path:
    for number in range(1, 5):
        write(root / "jpg" / f"image_{number:05d}.jpg", "")
    savemat(root / "setid.mat", {"trnid": [[1]], "valid": [[2]], "tstid": [[4, 3]]})
    savemat(root / "imagelabels.mat", {"labels": np.array([[7, 7, 102, 1]], np.uint8)})
    return root


def test_flowers102(tmp_path):
    test_set = flowers102(Store(flowers_tree(tmp_path)))
    assert test_set.keys == ("jpg/image_00004.jpg", "jpg/image_00003.jpg")
    assert test_set.labels.shape == (2, 102) and test_set.labels.sum() == 2
    names = [test_set.class_names[column] for column in test_set.labels.argmax(axis=1)]
    assert names == ["pink primrose", "blackberry lily"]


def test_flowers102_bad_files(tmp_path):
    flowers_tree(tmp_path)
    savemat(tmp_path / "imagelabels.mat", {"labels": [[1, 1, 103, 1]]})
    with pytest.raises(
        ValueError, match=r"imagelabels\.mat must hold classes of 1 to 102, got 103"
    ):
        flowers102(Store(tmp_path))
    savemat(tmp_path / "imagelabels.mat", {"labels": [[1, 1, 1]]})
    with pytest.raises(ValueError, match="got 3 labels, none of image 4"):
        flowers102(Store(tmp_path))
    savemat(tmp_path / "setid.mat", {"trnid": [[1]]})
    with pytest.raises(ValueError, match=r"setid\.mat must be a Matlab file that holds tstid"):
        flowers102(Store(tmp_path))
    (tmp_path / "setid.mat").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"setid\.mat must be a Matlab file that holds tstid"):
        flowers102(Store(tmp_path))


def test_a_missing_file_and_where_it_comes_from(tmp_path):
    flowers_tree(tmp_path)
    (tmp_path / "imagelabels.mat").unlink()
    message = r"No file .*imagelabels\.mat.* flowers102 comes from https://www\.robots\.ox\.ac\.uk"
    with pytest.raises(FileNotFoundError, match=message):
        load_test_set("flowers102", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"test\.txt.* voc2007 comes from http://host"):
        load_test_set("voc2007", str(tmp_path))
    with pytest.raises(ValueError, match=r"give --test-root\. It comes from https://cvml\.ista"):
        load_test_set("awa2")


def test_food101(tmp_path):
    names = load_vocabulary("food101").class_names
    write(tmp_path / "meta" / "classes.txt", "\n".join(names))
    write(tmp_path / "meta" / "test.txt", "waffles/12\napple_pie/7\n")
    for file in ("waffles/12.jpg", "apple_pie/7.jpg", "apple_pie/8.jpg"):
        write(tmp_path / "images" / file, "")
    test_set = food101(Store(tmp_path))
    assert test_set.keys == ("images/waffles/12.jpg", "images/apple_pie/7.jpg")
    assert test_set.labels.shape == (2, 101)
    assert test_set.labels.argmax(axis=1).tolist() == [100, 0] and test_set.labels.sum() == 2
    write(tmp_path / "meta" / "test.txt", "wafles/12\n")
    with pytest.raises(ValueError, match=r"test\.txt 'wafles'\. Did you mean 'waffles'"):
        food101(Store(tmp_path))


def awa2_tree(root: Path) -> Path:
    attributes = load_vocabulary("awa2").class_names
    lines = "".join(f"{at:5d}\t{name}\n" for at, name in enumerate(attributes[::-1], 1))
    write(root / "predicates.txt", lines)  # in another order
    write(root / "classes.txt", "    1\tblue+whale\n    2\thorse\n    3\tbat\n")
    rows = np.zeros((3, 85), int)
    rows[0, [84, 83]], rows[1, 0] = 1, 1
    write(root / "predicate-matrix-binary.txt", "\n".join(" ".join(map(str, r)) for r in rows))
    write(root / "testclasses.txt", "horse\nblue+whale\n")
    for name, number in (("horse", 2), ("horse", 1), ("blue+whale", 1), ("bat", 1)):
        write(root / "JPEGImages" / name / f"{name}_1000{number}.jpg", "")
    return root


def test_awa2(tmp_path):
    test_set = awa2(Store(awa2_tree(tmp_path)))
    files = ("horse/horse_10001", "horse/horse_10002", "blue+whale/blue+whale_10001")
    assert test_set.keys == tuple(f"JPEGImages/{file}.jpg" for file in files)
    named = [[test_set.class_names[at] for at in np.flatnonzero(row)] for row in test_set.labels]
    assert named == [["domestic"], ["domestic"], ["black", "white"]]


def test_awa2_bad_files(tmp_path):
    awa2_tree(tmp_path)
    write(tmp_path / "testclasses.txt", "hors\n")
    with pytest.raises(ValueError, match=r"classes\.txt must list hors\."):
        awa2(Store(tmp_path))
    write(tmp_path / "testclasses.txt", "horse\n")
    write(tmp_path / "predicate-matrix-binary.txt", "1 0\n")
    with pytest.raises(ValueError, match=r"must hold 0 and 1 for 3 animals and 85 attributes"):
        awa2(Store(tmp_path))
    write(tmp_path / "predicates.txt", "black\n")
    with pytest.raises(ValueError, match=r"predicates\.txt must hold lines of a number and a name"):
        awa2(Store(tmp_path))


def test_awa2_without_photographs(tmp_path):
    awa2_tree(tmp_path)
    write(tmp_path / "testclasses.txt", "horse\nbat\n")
    (tmp_path / "JPEGImages" / "bat" / "bat_10001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"No photograph in .*/JPEGImages/bat"):
        awa2(Store(tmp_path))
