from collections import Counter

import pytest

from t2ipal.captions.tasks import WritingConfig, make_task, plan_classes


def test_every_class_is_asked_for_equally_often():
    plan = plan_classes(20, 1000, WritingConfig())
    counts = Counter(index for classes in plan for index in classes)
    assert len(counts) == 20 and max(counts.values()) - min(counts.values()) <= 1
    assert all(len({*classes}) == len(classes) for classes in plan)
    sizes = Counter(map(len, plan))
    assert [sizes[size] / 1000 for size in range(1, 5)] == pytest.approx(
        WritingConfig().class_shares, abs=0.05
    )


def test_fewer_are_the_first_of_more():
    config = WritingConfig(seed=3)
    assert plan_classes(5, 40, config) == plan_classes(5, 90, config)[:40]
    assert plan_classes(5, 40, config) != plan_classes(5, 40, WritingConfig(seed=4))


def test_more_classes_than_there_are():
    plan = plan_classes(2, 50, WritingConfig(class_shares=(0, 0, 1)))
    assert {tuple(sorted(classes)) for classes in plan} == {(0, 1)}


def test_every_attempt_has_its_own_seed():
    seeds = {make_task(number, attempt, (0,), s).seed
             for number in range(9) for attempt in range(9) for s in range(9)}  # fmt: skip
    assert len(seeds) == 9**3
    assert make_task(1, 2, (0,), 3) == make_task(1, 2, (0,), 3)


def test_bad_settings():
    with pytest.raises(ValueError, match="class_shares must hold a number above 0"):
        WritingConfig(class_shares=(0.0, 0.0))
    with pytest.raises(ValueError, match="max_tries must be > 0, got 0"):
        WritingConfig(max_tries=0)
    with pytest.raises(ValueError, match="number of captions must be > 0, got 0"):
        plan_classes(3, 0, WritingConfig())
