import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

import pytest
import tyro

from t2ipal.config import (
    Bounds,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Share,
    added,
    check_fields,
    differences,
    field_paths,
    fingerprint,
    from_dict,
    one_of,
    override,
    parse_changes,
    read_yaml,
    require,
    to_dict,
    unknown,
)
from t2ipal.diffusion.config import SynthesisConfig


@dataclass(frozen=True)
class Optim:
    lr: float = 0.1
    num_epochs: int = 20
    warm: bool = True

    def __post_init__(self):
        require(self.lr > 0, f"lr must be > 0, got {self.lr}.")


@dataclass(frozen=True)
class Settings:
    name: str = "run"
    sizes: tuple[int, ...] = (1, 2)
    limit: float | None = None
    optim: Optim = field(default_factory=Optim)


@dataclass(frozen=True)
class Residual:
    """A method that came first, when there was nothing to tell it from."""

    method: Literal["residual"] = added("residual")
    adapter: Literal["none", "local", "global"] = "local"
    scale: PositiveFloat = 4.0

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class Concept:
    num_concepts: PositiveInt
    method: Literal["class_concept"] = "class_concept"
    scale: PositiveFloat = 2.0

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class Experiment:
    method: Residual | Concept = field(default_factory=Residual)
    other: Residual | Concept | None = None


@dataclass(frozen=True)
class Checked:
    batch_size: PositiveInt = 2
    num_epochs: NonNegativeInt = 1
    residual_ratio: NonNegativeFloat = 1.0
    lr: PositiveFloat | None = None
    min_found: Share = 0.5
    false_alarms: Annotated[float, Bounds(gt=0, lt=1)] = 0.5
    momentum: Annotated[float, Bounds(ge=0, lt=1)] = 0.9
    image_size_px: Annotated[int, Bounds(gt=0, multiple_of=8)] = 64
    sizes: Annotated[tuple[int, ...], Bounds(ge=1, le=100)] = (1, 2)
    shares: tuple[Share, ...] = (0.5,)
    patch: tuple[PositiveInt, Literal["px", "mm"]] = (1, "px")
    weights: Mapping[str, Share] = field(default_factory=dict)
    global_feature: Literal["global", "pooled"] | None = "global"
    depth: Literal[1, 2] = 1
    seed: int | str | float = 0
    every: Literal["epoch"] | PositiveInt = "epoch"
    anything: Any = None
    name: str = "run"
    warm: bool = True
    optim: Optim = field(default_factory=Optim)

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class Unchecked:
    """Has no check of its own; what is read from a file is checked all the same."""

    adapter: Literal["none", "local", "global"] = "local"
    momentum: Annotated[float, Bounds(ge=0, lt=1)] = 0.9


def told(make, *arguments, **values):
    """The message of the error that it raises."""
    with pytest.raises(ValueError) as error:
        make(*arguments, **values)
    return str(error.value)


def test_require():
    require(True, "never said")
    with pytest.raises(ValueError, match=r"^it must hold$"):
        require(False, "it must hold")


def test_unknown_names_the_nearest():
    error = str(unknown("animal", "hrse", ("dog", "horse")))
    assert error == "Unknown animal 'hrse'. Did you mean 'horse'? Known: dog, horse."
    assert "Did you mean 'horse'" in str(unknown("animal", "HORSE", ["dog", "horse"]))
    assert str(unknown("animal", "xyzzy", ("dog",))) == "Unknown animal 'xyzzy'. Known: dog."
    one_of("animal", "dog", iter(("dog", "horse")))
    with pytest.raises(ValueError, match="Did you mean 'horse'"):
        one_of("animal", "hrse", iter(("dog", "horse")))


def test_field_paths_go_into_nested_configs():
    paths = ["name", "sizes", "limit", "optim.lr", "optim.num_epochs", "optim.warm"]
    assert field_paths(Settings()) == paths
    assert field_paths(3) == []


def test_override_replaces_by_dotted_name_and_leaves_the_original():
    settings = Settings()
    changes = {"optim.lr": 1, "sizes": [3], "limit": 2, "name": "other"}
    changed = override(settings, changes)
    assert changed == Settings("other", (3,), 2.0, Optim(lr=1.0))
    assert isinstance(changed.optim.lr, float) and isinstance(changed.limit, float)
    assert settings == Settings()
    assert override(changed, {"limit": None}).limit is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim.rl": 1.0}, r"Unknown option 'optim\.rl'\. Did you mean 'optim\.lr'"),
        ({"optim": {}}, "Unknown option 'optim'"),
        ({"optim.lr": "fast"}, r"optim\.lr must be float, got 'fast'"),
        ({"optim.lr": True}, r"optim\.lr must be float, got True"),
        ({"optim.num_epochs": 1.5}, r"optim\.num_epochs must be int, got 1\.5"),
        ({"optim.num_epochs": False}, "must be int, got False"),
        ({"optim.warm": 1}, "must be bool, got 1"),
        ({"sizes": 3}, r"sizes must be tuple.*, got 3"),
        ({"sizes": [1, "2"]}, "sizes must be int, got '2'"),
        ({"name": None}, "name must be str, got None"),
        ({"optim.lr": -1.0}, r"lr must be > 0, got -1\.0"),
    ],
)
def test_override_rejects(changes, message):
    with pytest.raises(ValueError, match=message):
        override(Settings(), changes)


def test_dicts_come_back_as_the_same_config():
    settings = Settings("x", (5, 6), 0.5, Optim(0.3, 4, False))
    values = json.loads(json.dumps(to_dict(settings)))
    assert values["sizes"] == [5, 6] and values["optim"] == {
        "lr": 0.3,
        "num_epochs": 4,
        "warm": False,
    }
    assert from_dict(Settings, values) == settings
    assert from_dict(Settings, {}) == Settings()
    with pytest.raises(ValueError, match=r"Unknown field of Optim 'lrr'. Did you mean 'lr'"):
        from_dict(Settings, {"optim": {"lrr": 1.0}})


def test_fields_that_were_added_later_change_nothing_at_their_default():
    @dataclass(frozen=True)
    class Newer(Optim):
        decay: float = added(0.5)
        shape: tuple[int, ...] = added((1, 2))

    old = to_dict(Optim())
    assert to_dict(Newer()) == old and fingerprint(Newer()) == fingerprint(Optim())
    assert from_dict(Newer, old) == Newer()
    changed = override(Newer(), {"decay": 1, "shape": [3]})
    assert to_dict(changed) == {**old, "decay": 1.0, "shape": [3]}
    assert from_dict(Newer, to_dict(changed)) == changed == Newer(decay=1.0, shape=(3,))
    assert override(changed, {"decay": 0.5}) == Newer(shape=(3,))
    assert fingerprint(changed) != fingerprint(Newer())
    assert differences(to_dict(changed), old) == [
        "decay: None there, 1.0 here",
        "shape: None there, [3] here",
    ]


def test_fingerprint_follows_the_values_alone():
    one = fingerprint(Settings())
    assert len(one) == 16 and one == fingerprint(to_dict(Settings()))
    assert one == fingerprint(dict(reversed(to_dict(Settings()).items())))
    assert one != fingerprint(override(Settings(), {"optim.lr": 0.2}))
    assert fingerprint({"a": 1}) == "015abd7f5cc57a2d"  # sha256 of {"a":1}


def test_differences():
    ours, theirs = to_dict(Settings()), to_dict(Settings(optim=Optim(lr=0.2)))
    assert differences(ours, ours) == []
    assert differences(ours, theirs) == ["optim.lr: 0.2 there, 0.1 here"]
    assert differences({"a": 1}, {"b": {"c": 2}}) == [
        "a: None there, 1 here",
        "b: {'c': 2} there, None here",
    ]


def test_differences_name_what_one_side_leaves_out():
    changed = override(SynthesisConfig(), {"acceleration.deep_cache": 2, "image_format": "png"})
    ours, theirs = to_dict(changed), to_dict(SynthesisConfig())
    lines = ["acceleration.deep_cache: 1 there, 2 here", "image_format: 'jpeg' there, 'png' here"]
    assert differences(ours, theirs, defaults=asdict(SynthesisConfig())) == lines


def test_a_field_inside_one_that_was_added_can_be_overridden():
    changed = override(SynthesisConfig(), {"acceleration.channels_last": True})
    assert changed.acceleration.channels_last and not changed.acceleration.compile
    assert to_dict(changed)["acceleration"]["channels_last"] is True
    assert "acceleration" not in to_dict(SynthesisConfig())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", 0, "batch_size must be > 0, got 0."),
        ("num_epochs", -1, "num_epochs must be >= 0, got -1."),
        ("residual_ratio", -1.0, "residual_ratio must be >= 0, got -1.0."),
        ("lr", 0.0, "lr must be > 0, got 0.0."),
        ("min_found", 2.0, "min_found must be in 0..1, got 2.0."),
        ("false_alarms", 1.0, "false_alarms must be between 0 and 1, got 1.0."),
        ("momentum", 1.0, "momentum must be >= 0 and < 1, got 1.0."),
        ("image_size_px", 100, "image_size_px must be a positive multiple of 8, got 100."),
        ("image_size_px", 0, "image_size_px must be a positive multiple of 8, got 0."),
        ("sizes", (1, 200), "sizes must be in 1..100, got 200."),
        ("shares", (0.5, -1.0), "shares must be in 0..1, got -1.0."),
        ("patch", (0, "px"), "patch must be > 0, got 0."),
        ("patch", (1, "cm"), "Unknown patch 'cm'. Did you mean 'mm'? Known: mm, px."),
        ("patch", (1,), "patch must have 2 values, got (1,)."),
        ("patch", (1, "px", 1), "patch must have 2 values, got (1, 'px', 1)."),
        ("every", 0, "every must be > 0, got 0."),
        ("every", "epok", "Unknown every 'epok'. Did you mean 'epoch'? Known: epoch."),
        ("every", 1.5, "every must be str | int, got 1.5."),
        (
            "global_feature",
            "globel",
            "Unknown global feature 'globel'. Did you mean 'global'? Known: global, pooled.",
        ),
        ("depth", 3, "Unknown depth 3. Known: 1, 2."),
        ("depth", True, "Unknown depth True. Known: 1, 2."),
        ("residual_ratio", math.nan, "residual_ratio must be finite, got nan."),
        ("lr", math.inf, "lr must be finite, got inf."),
        ("shares", (-math.inf,), "shares must be finite, got -inf."),
        ("seed", math.nan, "seed must be finite, got nan."),
        ("lr", "1e-3", "lr must be float, got '1e-3'."),
        ("lr", True, "lr must be float, got True."),
        ("batch_size", True, "batch_size must be int, got True."),
        ("batch_size", 2.0, "batch_size must be int, got 2.0."),
        ("batch_size", None, "batch_size must be int, got None."),
        ("warm", 1, "warm must be bool, got 1."),
        ("name", None, "name must be str, got None."),
        ("sizes", 3, "sizes must be tuple, got 3."),
        ("sizes", (1, "2"), "sizes must be int, got '2'."),
        ("weights", 3, "weights must be Mapping, got 3."),
        ("weights", {"x": "heavy"}, "weights.x must be float, got 'heavy'."),
        ("weights", {"x": 2.0}, "x must be in 0..1, got 2.0."),
        ("weights", {1: 1.0}, "weights.1 must be str, got 1."),
        ("seed", None, "seed must be int | str | float, got None."),
        ("seed", False, "seed must be int | str | float, got False."),
        ("optim", 3, "optim must be Optim, got 3."),
    ],
)
def test_what_an_annotation_refuses_at_both_doors(name, value, message):
    assert told(Checked, **{name: value}) == message
    assert told(from_dict, Checked, {name: value}) == message


def test_what_an_annotation_takes():
    values = {
        "batch_size": 1,
        "residual_ratio": 0,
        "lr": None,
        "min_found": 1,
        "momentum": 0.0,
        "image_size_px": 8,
        "sizes": (1, 100),
        "shares": (),
        "patch": (3, "mm"),
        "weights": {"x": 1, "y": 0.5},
        "global_feature": None,
        "anything": math.nan,
        "every": 3,
        "depth": 2,
    }
    checked = Checked(**values)
    assert isinstance(checked.residual_ratio, int)  # nothing is converted there
    read = from_dict(Checked, json.loads(json.dumps(values | {"anything": [1]})))
    assert read == replace(checked, anything=[1])
    assert isinstance(read.residual_ratio, float) and isinstance(read.weights["x"], float)
    assert from_dict(Checked, to_dict(read)) == read


def test_only_what_is_read_is_converted():
    assert told(Checked, sizes=[1, 2]) == "sizes must be tuple, got [1, 2]."
    assert told(Checked, optim={"lr": 1.0}) == "optim must be Optim, got {'lr': 1.0}."
    assert from_dict(Checked, {"sizes": [1, 2], "optim": {"lr": 1}}) == Checked(optim=Optim(1.0))
    changed = override(Checked(), {"patch": [4, "mm"], "shares": [1, 0], "weights": {"x": 1}})
    assert (changed.patch, changed.shares, changed.weights) == ((4, "mm"), (1.0, 0.0), {"x": 1.0})


def test_what_is_read_is_checked_where_the_config_does_not():
    assert Unchecked("locl", 2.0).momentum == 2.0
    message = "Unknown adapter 'locl'. Did you mean 'local'? Known: global, local, none."
    assert told(from_dict, Unchecked, {"adapter": "locl"}) == message
    assert told(override, Unchecked(), {"adapter": "locl"}) == message
    message = "momentum must be >= 0 and < 1, got 1.0."
    assert told(override, Unchecked(), {"momentum": 1}) == message
    # Dotted where a type is wrong; bare where the config could have said the same.
    assert told(override, Experiment(), {"method.scale": "4"}) == (
        "method.scale must be float, got '4'."
    )
    assert told(override, Experiment(), {"method.scale": 0}) == "scale must be > 0, got 0.0."
    assert told(override, Experiment(), {"method.adapter": "locl"}).startswith("Unknown adapter")


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        (Bounds(lt=3), "< 3"),
        (Bounds(gt=0.5, le=3), "> 0.5 and <= 3"),
        (Bounds(ge=-1, le=1), "in -1..1"),
        (Bounds(multiple_of=4), "a multiple of 4"),
        (Bounds(ge=16, le=64, multiple_of=8), ">= 16 and <= 64 and a multiple of 8"),
    ],
)
def test_bounds_say_what_must_hold(bounds, text):
    assert str(bounds) == text
    assert [n for n in (-2, -1, 0, 1, 3, 8, 16, 20, 64, 72) if bounds.hold(n)] == {
        "< 3": [-2, -1, 0, 1],
        "> 0.5 and <= 3": [1, 3],
        "in -1..1": [-1, 0, 1],
        "a multiple of 4": [0, 8, 16, 20, 64, 72],
        ">= 16 and <= 64 and a multiple of 8": [16, 64],
    }[text]


def test_unions_take_exactly_their_members():
    for value in (3, "3", 3.0):
        read = from_dict(Checked, {"seed": value}).seed
        assert read == value and type(read) is type(value)

    @dataclass(frozen=True)
    class Wide:
        limit: float | str = 1.0
        sizes: tuple[int, int] | tuple[str, ...] | None = None

    assert isinstance(from_dict(Wide, {"limit": 3}).limit, float)
    assert from_dict(Wide, {"sizes": [1, 2]}).sizes == (1, 2)
    assert from_dict(Wide, {"sizes": ["a"]}).sizes == ("a",)
    assert from_dict(Wide, {"sizes": None}).sizes is None
    assert told(from_dict, Wide, {"sizes": [1]}) == "sizes must be tuple, got [1]."


def test_a_tag_tells_the_configs_of_a_union_apart():
    concept = Experiment(Concept(3), Residual(scale=1.0))
    values = {
        "method": {"num_concepts": 3, "method": "class_concept", "scale": 2.0},
        "other": {"adapter": "local", "scale": 1.0},  # as stored before there was another
    }
    assert to_dict(concept) == values
    assert from_dict(Experiment, values) == concept
    assert from_dict(Experiment, {"method": {"method": "residual"}}) == Experiment()
    assert from_dict(Experiment, {"other": None}).other is None
    assert told(from_dict, Experiment, {"method": {"method": "concept"}}) == (
        "Unknown method 'concept'. Did you mean 'class_concept'? Known: class_concept, residual."
    )
    assert told(from_dict, Experiment, {"method": {"num_concepts": 3}}).startswith(
        "Unknown field of Residual 'num_concepts'."
    )
    assert told(from_dict, Experiment, {"method": 3}) == "method must be Residual | Concept, got 3."
    assert told(Residual, method="class_concept").startswith("Unknown method 'class_concept'.")


def test_a_union_without_a_first_member_needs_the_tag():
    @dataclass(frozen=True)
    class Other:
        method: Literal["other"] = "other"

    @dataclass(frozen=True)
    class Both:
        method: Concept | Other

    assert from_dict(Both, {"method": {"method": "other"}}) == Both(Other())
    assert told(from_dict, Both, {"method": {}}) == (
        "method.method must be one of class_concept, other, got nothing."
    )
    assert told(from_dict, Both, {}) == "method of Both must be given, got nothing."


def test_an_override_keeps_the_member_of_a_union():
    concept = Experiment(Concept(3))
    assert override(concept, {"method.scale": 3}) == Experiment(Concept(3, scale=3.0))
    assert override(Experiment(), {"method.scale": 3}) == Experiment(Residual(scale=3.0))
    assert "Unknown option 'method.adapter'" in told(override, concept, {"method.adapter": "none"})
    assert told(override, Experiment(), {"method.method": "class_concept"}).startswith(
        "Unknown field of Concept 'adapter'."
    )
    assert "Did you mean 'residual'" in told(override, concept, {"method.method": "residul"})
    changed = override(Experiment(), {"other": {"method": "class_concept", "num_concepts": 2}})
    assert changed.other == Concept(2)
    message = "other.num_concepts of Concept must be given, got nothing."
    assert told(override, Experiment(), {"other": {"method": "class_concept"}}) == message


def test_annotations_do_not_show_in_what_is_stored():
    @dataclass(frozen=True)
    class Bare:
        adapter: str = "local"
        scale: float = 4.0

    assert to_dict(Residual()) == to_dict(Bare())
    assert fingerprint(Residual()) == fingerprint(Bare())
    assert field_paths(Experiment()) == [
        "method.method",
        "method.adapter",
        "method.scale",
        "other",
    ]


def test_changes_are_read_as_numbers_and_words():
    changes = ["training.lr=1e-3", "method.adapter=none", "training.images_per_caption=null"]
    changes += ["method.context_init=a photo of a", "sizes=[1, 2]", "warm=true"]
    assert parse_changes(changes) == {
        "training.lr": 1e-3,
        "method.adapter": "none",
        "training.images_per_caption": None,
        "method.context_init": "a photo of a",
        "sizes": [1, 2],
        "warm": True,
    }
    assert told(parse_changes, ["lr"]) == "A change must read name=value, got 'lr'."
    assert told(parse_changes, ["lr=[2"]).startswith("'lr=[2' has no value that YAML can read: ")


def test_the_command_line_reads_checked_configs(capsys):
    arguments = "--batch-size 4 --lr 0.5 --global-feature pooled --patch 3 mm --sizes 7 8 --seed a"
    assert tyro.cli(Checked, args=arguments.split()) == Checked(
        batch_size=4, lr=0.5, global_feature="pooled", patch=(3, "mm"), sizes=(7, 8), seed="a"
    )
    with pytest.raises(SystemExit):
        tyro.cli(Residual, args=["--help"])
    shown = capsys.readouterr().out
    assert "--adapter {none,local,global}" in shown and "--scale FLOAT" in shown
    for arguments, message in (
        (["--adapter", "locl"], "invalid choice 'locl' for argument '--adapter'"),
        (["--scale", "0"], "scale must be > 0, got 0.0."),
    ):
        with pytest.raises(SystemExit):
            tyro.cli(Residual, args=arguments)
        assert message in capsys.readouterr().err
    experiment = tyro.cli(Experiment, args=["method:concept", "--method.num-concepts", "3"])
    assert experiment == Experiment(Concept(3))


def test_importing_it_loads_nothing_heavy():
    code = "import sys, t2ipal.config; print(*{'torch', 'yaml', 'tyro'} & {*sys.modules})"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == "\n"


def test_a_tab_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("a:\n\tb: 1")
    with pytest.raises(ValueError, match=r"in line 2, column 1. Indent with spaces, not with tabs"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize("last", ["*i", "{<<: [*i, *i]}", "&self [*self]"])
def test_aliases_that_stand_for_more_than_a_memory_holds(tmp_path, last):
    levels = [
        f"- &{name} [{', '.join(['*' + before] * 9)}]"
        for before, name in zip("abcdefgh", "bcdefghi")
    ]
    (tmp_path / "a.yaml").write_text("\n".join(["- &a {b: c}", *levels, f"- {last}"]))
    with pytest.raises(ValueError, match="its aliases stand for more than 1,000,000 values"):
        read_yaml(tmp_path / "a.yaml")


def test_a_number_beyond_floats_is_refused():
    assert told(override, Settings(), {"optim.lr": 10**400}).endswith("finite, got a huge number.")
