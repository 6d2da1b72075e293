import pytest
from fake_clip import NAMES, PROMPT_NAMES

from t2ipal.training.plans import plan_runs
from t2ipal.training.recipes import METHODS


def plan(methods, seeds=(0, 1), **changes):
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return plan_runs(methods, seeds, "pictovoc", NAMES, PROMPT_NAMES, named)


def test_a_run_for_each_method_and_seed_but_one_where_nothing_is_trained():
    runs, remarks = plan(("zsclip", "class_concept", "tai_dpt", "t2ipal"), (3, 1))
    assert [run.name for run in runs] == [
        "zsclip-seed3", "class_concept-seed3", "tai_dpt-seed3", "tai_dpt-seed1", "t2ipal-seed3",
        "t2ipal-seed1",
    ]  # fmt: skip
    assert [run.recipe.training.seed for run in runs] == [3, 3, 3, 1, 3, 1]
    assert remarks == []


def test_a_change_holds_for_every_method_that_has_the_option():
    runs, remarks = plan(("tai_dpt", "t2ipal"), (0,), method__sharpness=2.0, training__lr=0.5)
    assert [run.recipe.method.sharpness for run in runs] == [2.0, 2.0]
    assert [run.recipe.training.lr for run in runs] == [0.5, 0.5]
    assert remarks == []


def test_who_cannot_take_a_change_is_told():
    runs, remarks = plan(
        ("zsclip", "class_concept", "t2ipal"), (0,), method__sharpness=2.0, training__num_epochs=4
    )
    by_name = {run.name: run.recipe for run in runs}
    assert by_name["zsclip-seed0"].training.num_epochs == 0
    assert by_name["zsclip-seed0"].method.sharpness == 2.0
    assert by_name["class_concept-seed0"].training.num_epochs == 0
    trained = by_name["t2ipal-seed0"]
    assert (trained.training.num_epochs, trained.method.sharpness) == (4, 2.0)
    assert remarks == [
        "zsclip does not take training.num_epochs: it goes on without.",
        "class_concept does not take method.sharpness, training.num_epochs: it goes on without.",
    ]


def test_an_option_of_one_method_alone():
    runs, remarks = plan(("t2ipal", "class_concept"), (0,), method__local_sharpness=7.0)
    assert runs[1].recipe.method.local_sharpness == 7.0
    assert remarks == ["t2ipal does not take method.local_sharpness: it goes on without."]


def test_a_users_change_wins_over_the_schedule_and_the_methods_own():
    """Whatever makes a method what it is by default, a user may change it; only `fixed` may not."""
    runs, _ = plan(("t2ipal_no_adapter", "t2ipal"), (0,), method__adapter="global")
    assert [run.recipe.method.adapter for run in runs] == ["global", "global"]
    runs, _ = plan(("t2ipal_one_image",), (0,), training__images_per_caption=4)
    assert runs[0].recipe.training.images_per_caption == 4
    runs, _ = plan(("t2ipal",), (0,), training__prototype_lr=None)
    assert runs[0].recipe.training.prototype_lr is None


@pytest.mark.parametrize("methods", [("zsclip",), ("zsclip", "class_concept", "zsclip_local")])
def test_a_change_that_no_method_takes(methods):
    message = rf"training.num_epochs=4 applies to none of {', '.join(methods)}: leave it out, or"
    with pytest.raises(ValueError, match=message):
        plan(methods, training__num_epochs=4)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("training__seed", "training.seed cannot be changed here: seeds are given by --seeds"),
        ("method__method", "method.method cannot be changed here: methods are given by --methods"),
        ("method__class_names", "class_names cannot be changed here: classes are those of the run"),
    ],
)
def test_what_other_options_decide_is_no_change(name, remedy):
    with pytest.raises(ValueError, match=remedy):
        plan(("t2ipal",), (0, 1), **{name: 5})


def test_bad_input():
    for methods, seeds in [((), (0,)), (("t2ipal",), ())]:
        with pytest.raises(ValueError, match="Give at least one method and one seed"):
            plan(methods, seeds)
    with pytest.raises(ValueError, match=r"Unknown method 't2pal'. Did you mean 't2ipal'"):
        plan(("t2pal",))
    with pytest.raises(ValueError, match=r"Unknown option .* Did you mean 'method.sharpness'"):
        plan(("t2ipal",), method__sharpnes=2.0)
    with pytest.raises(ValueError, match=r"method.sharpness must be float, got 'two'"):
        plan(("t2ipal",), method__sharpness="two")


def test_the_methods_that_take_no_epochs():
    fixed = {name for name, method in METHODS.items() if "training.num_epochs" in method.fixed}
    clip = {"zsclip", "zsclip_local", "zsclip_80", "zsclip_80_local"}
    assert fixed == {*clip, "class_concept", "tip_adapter"}
