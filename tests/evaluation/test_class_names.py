import pytest

from t2ipal.evaluation.class_names import ClassNames


def test_names_in_other_writing():
    names = ClassNames(("dog", "pottedplant", "C++", "chien"))
    for name in ("Potted plant", "potted_plant", " POTTED-PLANT "):
        assert names.column(name) == 1
    assert names.column("c++") == names.column("C") == 2
    assert names.column("plant") is None
    with pytest.raises(ValueError, match=r"Unknown class in here 'dgo'. Did you mean 'dog'"):
        names.require("dgo", "here")


def test_a_name_that_means_two_classes():
    names = ClassNames(("tvmonitor", "TV monitor"))
    assert names.column("tvmonitor") == 0 and names.column("TV monitor") == 1
    assert names.column("tv_monitor") is None
