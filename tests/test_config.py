import json
from dataclasses import asdict, dataclass, field

import pytest

from t2ipal.config import (
    added,
    differences,
    field_paths,
    fingerprint,
    from_dict,
    one_of,
    override,
    require,
    to_dict,
    unknown,
)
from t2ipal.synthesis import SynthesisConfig


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


def test_require():
    require(True, "never said")
    with pytest.raises(ValueError, match=r"^it must hold$"):
        require(False, "it must hold")


def test_unknown_names_the_nearest():
    error = str(unknown("animal", "hrse", ("dog", "horse")))
    assert error == "Unknown animal 'hrse'. Did you mean 'horse'? Known: dog, horse."
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
