import pytest

from t2ipal.engine.config import RayConfig, TrainingGroup


def test_max_wait_must_be_a_time():
    with pytest.raises(ValueError, match=r"max_wait_s must be > 0, got 0"):
        RayConfig(max_wait_s=0)


@pytest.mark.parametrize(
    ("text", "sizes"), [("0", (0, 0)), ("1", (1, 1)), ("12", (12, 12)), ("1:4", (1, 4))]
)
def test_a_number_of_workers_or_a_range(text, sizes):
    assert TrainingGroup(text).sizes == sizes


@pytest.mark.parametrize("text", ["", "-1", "1.5", "0:4", "4:1", "1:", ":4", "1:2:3", "all", "1-4"])
def test_what_is_no_number_of_workers(text):
    message = "num_workers must be a number or MIN:MAX with 1 <= MIN <= MAX, such as 4 or 1:4, got "
    with pytest.raises(ValueError, match=f"^{message}'{text}'.$"):
        TrainingGroup(text)


def test_every_worker_must_have_a_caption():
    TrainingGroup("1:4").check_batch(4)
    TrainingGroup("0").check_batch(0)
    message = r"num_workers must be at most 3, the captions of a batch, .*, got 1:4\."
    with pytest.raises(ValueError, match=message):
        TrainingGroup("1:4").check_batch(3)
