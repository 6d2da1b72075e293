import unicodedata

import pytest

from t2ipal.evaluation.finding import Files

KEYS = (
    "a.jpg",
    "val/b.jpg",
    "val/deep/c.PNG",
    "other/c.jpg",
    "val/é.jpg",
    "d",
    "d.jpg",
    "notes.txt",
)


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        (" /a.jpg ", "a.jpg"),
        ("A.JPG", "a.jpg"),
        ("a", "a.jpg"),
        ("somewhere/else/a.jpg", "a.jpg"),
        ("C:\\photos\\a.jpg", "a.jpg"),
        ("b.jpg", "val/b.jpg"),
        ("val\\b", "val/b.jpg"),
        ("home/me/VAL/B.jpg", "val/b.jpg"),
        ("c.jpg", "other/c.jpg"),
        ("c.png", "val/deep/c.PNG"),
        (unicodedata.normalize("NFD", "É.jpg"), "val/é.jpg"),
        ("d", "d"),
        ("notes.txt", "notes.txt"),
        ("notes", None),
        ("train/b.jpg", None),  # another file of this name, for all that is known
        ("a.png", None),
        ("", None),
    ],
)
def test_names_that_mean_a_file(file, key):
    assert Files("here", KEYS).find(file) == key


def test_a_name_that_may_be_several():
    with pytest.raises(ValueError, match=r"c in here may be other/c.jpg or val/deep/c.PNG: write"):
        Files("here", KEYS).find("c")
    files = Files("here", ("x/a.jpg", "y/a.jpg", "a.JPG", "A.jpg"))
    with pytest.raises(
        ValueError, match=r"a.jpg in here may be x/a.jpg or y/a.jpg: write the path"
    ):
        files.find("a.jpg")
    assert files.find("any/y/a.jpg") == "y/a.jpg"
    assert files.find("A.jpg") == "A.jpg"
