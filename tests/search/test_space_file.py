import random
import re
from pathlib import Path

import pytest
from fake_clip import NAMES, PROMPT_NAMES

from t2ipal.config import override
from t2ipal.search.setting import Setting
from t2ipal.search.space import Dimension
from t2ipal.search.space_file import load_space, remarks
from t2ipal.training.recipes import recipe

SPACES = Path(__file__).parents[2] / "tune_spaces"
RECIPE = override(
    recipe("t2ipal", "pictovoc", NAMES, PROMPT_NAMES),
    {"training.num_epochs": 2, "training.batch_size": 16},
)
SETTING = Setting(RECIPE.method, RECIPE.training)
PLUS = Setting(recipe("t2ipal_plus", "pictovoc", NAMES, PROMPT_NAMES).method, RECIPE.training)
METHOD_OF = {"full": PLUS}
"""Shipped spaces of another method than T2I-PAL."""


@pytest.mark.parametrize(
    "name, num_trials, minimize",
    [("paper", 120, ()), ("quick", 16, ()), ("full", 128, ()), ("cost", 64, ("images",))],
)
def test_shipped_spaces_are_valid(name, num_trials, minimize):
    search = load_space(SPACES / f"{name}.yaml", METHOD_OF.get(name, SETTING))
    assert (search.num_trials, search.minimize) == (num_trials, minimize)
    assert {path.stem for path in SPACES.iterdir()} == {"paper", "quick", "full", "cost"}


def space(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return load_space(path, SETTING)


def test_space_is_read(tmp_path):
    search = space(
        tmp_path,
        """
        searcher: random
        num_samples: 3
        space:
          method.residual_ratio: {uniform: [0, 4]}
          training.lr: {loguniform: [1.0e-4, 0.1]}
          training.images_per_caption: {randint: [1, 6]}
          method.aggregation: {choice: [weighted, max]}
          training.seed: {grid: [0, 1]}
        """,
    )
    assert (search.searcher, search.num_samples, search.metric) == ("random", 3, "validation_mAP")
    assert search.dimensions == (
        Dimension("method.residual_ratio", "uniform", (0.0, 4.0)),
        Dimension("training.lr", "loguniform", (1e-4, 0.1)),
        Dimension("training.images_per_caption", "randint", (1, 6)),
        Dimension("method.aggregation", "choice", ("weighted", "max")),
        Dimension("training.seed", "grid", (0, 1)),
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("space: {method.residual_ration: {grid: [1]}}", "Did you mean 'method.residual_ratio'"),
        ("space: {method.sharpness: {gird: [1]}}", "kind of method.sharpness 'gird'.*'grid'"),
        ("space: {method.sharpness: [1, 2]}", "needs exactly one of grid, choice"),
        ("space: {method.sharpness: {grid: 3}}", "needs a list of values, got 3"),
        ("space: {method.sharpness: {grid: []}}", "needs a list of values"),
        ("space: {method.sharpness: {uniform: [1, -1]}}", "low must be below high"),
        ("space: {method.sharpness: {uniform: [-1, 1]}}", "sharpness must be >= 0, got -1.0"),
        ("space: {method.image_weight: {uniform: [0, 2]}}", "in 0..1, got 2.0"),
        ("space: {training.lr: {loguniform: [0, 1]}}", "loguniform needs low > 0, got 0"),
        ("space: {training.lr: {loguniform: [1e-4, 1]}}", "'1e-4' is text in YAML: write 0.0001"),
        (
            "space: {training.lr: {grid: [1e-4]}}",
            "training.lr must be float.*'1e-4' is text in YAML",
        ),
        ("space: {training.lr: {uniform: [1]}}", r"needs \[low, high\] as numbers"),
        ("space: {training.seed: {randint: [0, 2.5]}}", "as whole numbers"),
        ("space: {training.seed: {uniform: [0, 2]}}", "training.seed must be int, got 0.0"),
        ("space: {training.images_per_caption: {randint: [0, 6]}}", "must be > 0, got 0"),
        ("space: {method.aggregation: {choice: [weighted, men]}}", "Did you mean 'mean'"),
        ("space: {}", "one option or more to vary"),
        ("sapce: {}", "Unknown key 'sapce'. Did you mean 'space'"),
        ("seed: 1", "must stand under `space`, got no such key"),
        ("space:", "`space` must be a mapping"),
        ("", "the file is empty"),
        ("# a comment", "the file is empty"),
        ("- 1", "must be a mapping .* got list"),
        ("space: {a: [}", "is no YAML"),
        ("num_sample: 3\nspace: {method.sharpness: {grid: [1]}}", "Did you mean 'num_samples'"),
        ("num_samples: x\nspace: {method.sharpness: {grid: [1]}}", "num_samples must be int"),
        ("num_samples: 0\nspace: {method.sharpness: {grid: [1]}}", "num_samples must be >= 1"),
        ("searcher: optun\nspace: {method.sharpness: {grid: [1]}}", "Did you mean 'optuna'"),
        ("searcher: optuna\nspace: {method.sharpness: {grid: [1]}}", "takes no grid dimension"),
        ("searcher: grid\nspace: {method.sharpness: {uniform: [1, 2]}}", "takes only grid"),
        ("metric: test_mAP\nspace: {method.sharpness: {grid: [1]}}", "'validation_mAP'"),
        ("mode: maximum\nspace: {method.sharpness: {grid: [1]}}", "Did you mean 'max'"),
        ("scheduler: ahsa\nspace: {method.sharpness: {grid: [1]}}", "Did you mean 'asha'"),
        *[
            (f"{words}\nspace: {{method.sharpness: {{grid: [1]}}}}", message)
            for words, message in [
                ("dimensions: [1]", "Unknown key 'dimensions'"),
                ("on: 1", "Unknown key True.*YAML reads on, off, yes and no as truth values"),
                ("scheduler: off", "scheduler False.*YAML reads on, off"),
                ("searcher: OPTUNA", "Did you mean 'optuna'"),
                ('num_samples: "3"', "num_samples must be int, got '3'.*write 3, without quotes"),
                ("num_samples: 1e2", "num_samples must be int, got '1e2'.*write 100"),
                ("validation_fraction: 2e-1", "'2e-1' is text in YAML: write 0.2"),
                ("num_samples:", "num_samples must be int, got None.*no value: write one"),
                ("num_samples: 100001", "100,001 trials, and 100,000 are the most"),
                ("minimize: loss", r"minimize takes a list, got 'loss'. Write \[loss\]"),
                ("minimize: [los]", "Did you mean 'loss'"),
                ("minimize: {loss: 1}", "minimize takes numbers, texts.*got dict"),
                ("seed: 1\nseed: 2", "the key 'seed' stands twice.* in line 2, column 1"),
                ("seed: !!timestamp x", "a value does not fit its !!tag"),
                ("--- 1\n---", "is no YAML.*another document"),
            ]
        ],
        ("space:\n\tmethod.sharpness: {grid: [1]}", "in line 2, column 1.*spaces, not with tabs"),
        ("space: {on: {grid: [1]}}", "name must be text, got True. YAML reads on, off"),
        ("space: {method: {sharpness: {grid: [1]}}}", "is a group.*e.g. method.context_length"),
        ("space: {sharpness: {grid: [1]}}", "Did you mean 'method.sharpness'"),
        ("space: {method.class_names: {grid: [a]}}", "cannot be varied: the run's captions"),
        ("space: {method.method: {grid: [t2ipal]}}", "a search is of one method"),
        ("space: {synthesis.seed: {grid: [1]}}", "of the images only synthesis.guidance_scale and"),
        ("space: {synthesis.images_per_caption: {grid: [1]}}", "vary training.images_per_caption"),
        ("space: {synthesis.guidance_scale: {uniform: [1, 2]}}", "takes grid or choice.*whole set"),
        ("space: {synthesis.guidance_scales: {grid: [1]}}", "mean 'synthesis.guidance_scale'"),
        ("space: {method.sharpness: {grid: [1, 1.0]}}", r"lists \[1.0\] twice; leave one"),
        ("space: {method.sharpness: {grid: [.nan]}}", "must be finite, got nan"),
        ("space: {method.sharpness: {uniform: [1, .inf]}}", "both ends must be finite"),
        (f"space: {{method.sharpness: {{uniform: [1, 1{'0' * 400}]}}}}", "ends must be finite"),
        (f"space: {{method.sharpness: {{grid: [1{'0' * 400}]}}}}", "must be finite, got a huge"),
        (f"space: {{training.seed: {{randint: [1, 1{'0' * 30}]}}}}", "and below 2..53"),
        ("space: {method.sharpness: {grid: [2001-01-01]}}", "got date .*Put a text in quotes"),
        ("space: {method.sharpness: {grid: &a [*a]}}", "takes numbers, texts.*got list"),
        ("space: {method.adapter: {choice: [local, no]}}", "adapter False.*YAML reads on, off"),
        ("space: {method.local_scores: {grid: [on, off]}}", 'set adapter to "none" or "global".$'),
        ('space: {method.sharpness: {grid: ["1"]}}', "float, got '1'.*write 1, without quotes"),
        ("space: {training.num_epochs: {randint: [0, 3]}}", "must be > 0 in a search, got 0"),
        ("space: {training.seed: {uniform: [0, 2]}}", "Take randint for whole numbers"),
        (
            "space: {method.sharpness: {uniform: [1, 2]}, method.scale: {uniform: [1, 2]}}",
            "2 options, which need 2 trials or more to say anything, got 1: raise num_samples, to",
        ),
        (
            f"space: {{method.sharpness: {{grid: {list(range(400))}}}, method.scale: {{grid: "
            f"{list(range(1, 301))}}}}}",
            "has 120,000 trials, and 100,000 are the most",
        ),
        ("validation_fraction: 1\nspace: {method.sharpness: {grid: [1]}}", "between 0 and 1"),
    ],
)
def test_bad_spaces(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        space(tmp_path, text)
    assert "space.yaml" in str(error.value) and "\n" not in str(error.value)


def test_missing_space(tmp_path):
    with pytest.raises(FileNotFoundError, match="No space file"):
        load_space(tmp_path / "none.yaml", RECIPE)


def test_number_of_trials_in_place_of_the_files_own(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("space: {method.sharpness: {uniform: [1, 2]}, method.scale: {uniform: [1, 2]}}")
    assert load_space(path, SETTING, num_samples=7).num_trials == 7
    with pytest.raises(ValueError, match=r"^num_samples must be >= 1, got 0"):
        load_space(path, SETTING, num_samples=0)


def test_options_that_change_nothing(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("space: {method.sharpness: {grid: [1, 2]}}")
    plain = override(SETTING, {"method.adapter": "none"})
    with pytest.raises(ValueError, match=r"sharpness changes nothing with method.adapter none"):
        load_space(path, plain)
    path.write_text(path.read_text().replace("}}", "}, method.adapter: {grid: [none, local]}}"))
    assert load_space(path, plain).num_trials == 4


def test_more_images_than_the_run_has_are_told():
    paper, full = load_space(SPACES / "paper.yaml", SETTING), load_space(SPACES / "full.yaml", PLUS)
    assert remarks(full, PLUS) == []
    assert remarks(paper, override(SETTING, {"synthesis.images_per_caption": 6})) == []
    (line,) = remarks(paper, override(SETTING, {"synthesis.images_per_caption": 2}))
    assert "has 2 images per caption, and training.images_per_caption goes up to 6" in line


def test_what_is_no_readable_file(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=f"{tmp_path} is a folder. Name a space file"):
        load_space(tmp_path, SETTING)
    path = tmp_path / "space.yaml"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    with pytest.raises(ValueError, match=r"space.yaml is no YAML: unacceptable character"):
        load_space(path, SETTING)

    def refuse(_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError, match=r"space.yaml cannot be read: its permissions"):
        load_space(path, SETTING)


BITS = r"""{ } [ ] , : - & * ! ' " # ? | <<: &a *a !!int !!map on ~ .nan .inf 1e-3 -1 0 7 0.5 é"""
NAMED = (
    "grid choice uniform randint loguniform optuna asha loss min images synthesis.seed space none"
)
PIECES = [*BITS.split(), *NAMED.split(), "\t", "\n", "\0", " ", "", "1" + "0" * 400]


def test_damaged_spaces_are_refused_in_one_line(tmp_path):
    """Seeded damage to the shipped files: each loads, or is refused with its name."""
    path, rng, refused = tmp_path / "space.yaml", random.Random(0), 0
    for number in range(400):
        shipped = SPACES / f"{('paper', 'quick', 'full', 'cost')[number % 4]}.yaml"
        pieces = re.findall(r"[\w.]+|\s+|.", re.sub("#.*\n", "", shipped.read_text()))
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(pieces))
            pieces[place] = rng.choice([*PIECES, pieces[place] * 2, rng.choice(pieces)])
        path.write_text("".join(pieces), encoding="utf-8")
        try:
            load_space(path, PLUS)
        except (ValueError, OSError) as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error), path.read_text()
    assert 300 < refused < 400  # a few load
