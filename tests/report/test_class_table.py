"""Average precision by class: few classes, very many, and those without a number."""

import math
import re

import pytest

from t2ipal.report.class_table import classes
from t2ipal.report.contents import MethodResult, Report

EVIL = "<script>&\"' 很长 قطة 🐕"


def table(*per_class, names=None):
    """The table of some methods, the last of which is the best."""
    results = [
        MethodResult(f"method {n}", "", float(n), 0.0, per_class=values)
        for n, values in enumerate(per_class)
    ]
    names = names or [f"class {n}" for n in range(len(per_class[0]))]
    body = classes(Report("t", "", results, names))
    shown, _, folded = body.partition("<details>")
    return shown, folded


def rows(body):
    return re.findall(r'<th scope="row">([^<]*)</th>', body)


def test_a_row_a_class_sorted_by_the_best_method():
    shown, folded = table([50.0, 60.0, 70.0], [80.0, 90.0, 70.0])
    assert rows(shown) == ["class 1", "class 0", "class 2"] and not folded
    assert "Average precision of each class in percent, sorted by method 1." in shown
    numbers = re.findall(r'class="number">(?:<strong>)?([^<]+)<', shown.partition("<tbody>")[2])
    assert numbers == ["60.0", "90.0", "+30.0", "50.0", "80.0", "+30.0", "70.0", "70.0", "0.0"]
    assert "dash" not in shown


def test_a_single_class():
    shown, folded = table([100.0])
    assert rows(shown) == ["class 0"] and "100.0" in shown and not folded


@pytest.mark.parametrize("values", [[math.nan, 50.0, 60.0], [math.nan] * 3])
def test_a_class_without_a_number_comes_last(values):
    shown, _ = table([10.0, 20.0, 30.0], values)
    assert rows(shown)[-1] == ("class 0" if math.isfinite(values[1]) else "class 2")
    assert "A dash: the test set has no positive of the class." in shown
    assert ">–<" in shown and "nan" not in shown


def test_of_very_many_classes_the_best_and_the_worst():
    values = [float(n) / 10 for n in range(1000)]
    values[500] = math.nan
    shown, folded = table([50.0] * 1000, values, names=[f"{EVIL} {n}" for n in range(1000)])
    numbers = [int(name.rpartition(" ")[2]) for name in rows(shown)]
    assert numbers == [*range(999, 979, -1), *range(19, -1, -1)]
    others = [int(name.rpartition(" ")[2]) for name in rows(folded)]
    assert others == [*(n for n in range(979, 19, -1) if n != 500), 500]
    assert "of the 20 best and the 20 worst of 1,000 classes" in shown
    assert "960 classes" in folded and "<svg viewBox" not in folded
    assert "<script" not in shown + folded and "&lt;script&gt;&amp;&quot;&#x27; 很长" in shown
    assert len(shown) + len(folded) < 400_000


def test_a_hundred_classes_are_shown_one_by_one():
    shown, folded = table([float(n) for n in range(100)])
    assert len(rows(shown)) == 100 and not folded


def test_many_classes_of_which_few_have_a_number():
    values = [math.nan] * 200
    values[7], values[9] = 5.0, 6.0
    shown, folded = table(values)
    assert rows(shown) == ["class 9", "class 7"] and len(rows(folded)) == 198
