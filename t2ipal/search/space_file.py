"""Space files: YAML whose every name, value and end of a range is tried before anything starts."""

import math
import reprlib
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from t2ipal.config import from_dict, one_of, override, read_yaml, require, unknown
from t2ipal.search.setting import (
    IMAGES_PER_CAPTION,
    Setting,
    require_effect,
    require_searchable,
)
from t2ipal.search.space import KINDS, RANGES, Dimension, SearchConfig

MOST_TRIALS = 100_000
"""Of a search: more are a slip of the pen."""
WHOLE = 2**53
"""Whole numbers of a range lie between this and its negative: a float holds each of them."""


def load_space(path: Path | str, setting: Setting, num_samples: int | None = None) -> SearchConfig:
    """Reads a space file; every name, value and end of a range is tried on `setting`.

    Args:
        path: of the file.
        setting: what every trial starts from.
        num_samples: in place of the file's own number.

    Raises:
        FileNotFoundError: no such file.
        PermissionError: it cannot be read.
        ValueError: what is wrong, with the file's name and the option's.
    """
    path, examples = Path(path), "tune_spaces/ holds examples."
    require(num_samples is None or num_samples > 0, f"num_samples must be >= 1, got {num_samples}.")
    require(not path.is_dir(), f"{path} is a folder. Name a space file: {examples}")
    if not path.is_file():
        raise FileNotFoundError(f"No space file {path}. {examples}")
    try:
        content = read_yaml(path)
    except PermissionError as error:
        raise PermissionError(f"{path} cannot be read: its permissions forbid it.") from error
    try:
        return _checked(content, setting, num_samples)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def remarks(search: SearchConfig, setting: Setting) -> list[str]:
    """What is worth knowing of a space before its search starts on the setting's run."""
    there = setting.synthesis.images_per_caption
    varied = [d.values for d in search.dimensions if d.path == IMAGES_PER_CAPTION]
    most = max((value for values in varied for value in values if value is not None), default=0)
    if most <= there:
        return []
    return [
        f"The run has {there} images per caption, and {IMAGES_PER_CAPTION} goes up to {most}: all "
        f"values from {there} on give the same training. Synthesize more images to compare them."
    ]


def _checked(content: Any, setting: Setting, num_samples: int | None) -> SearchConfig:
    require(content is not None, "the file is empty. Write the options to vary under `space`.")
    require(
        isinstance(content, dict),
        f"the file must be a mapping with the options to vary under `space`, got "
        f"{type(content).__name__}.",
    )
    known = [field.name for field in fields(SearchConfig) if field.name != "dimensions"]
    for name, value in content.items():
        if name not in [*known, "space"]:
            raise ValueError(f"{unknown('key', name, [*known, 'space'])}{_hint(name)}")
        for item in value if name == "minimize" and isinstance(value, list) else (value,):
            require(name == "space" or _is_plain(item), f"{name} takes {_plain_got(item)}")
    rules = content.get("space")
    require("space" in content, "the options to vary must stand under `space`, got no such key.")
    require(
        isinstance(rules, dict),
        f"`space` must be a mapping of the options to vary, got {reprlib.repr(rules)}.",
    )
    require(bool(rules), "A space needs one option or more to vary, got none.")
    given = {name: value for name, value in content.items() if name != "space"}
    require(
        not isinstance(given.get("minimize"), str),
        f"minimize takes a list, got {given.get('minimize')!r}. Write [{given.get('minimize')}].",
    )
    if num_samples is not None:
        given["num_samples"] = num_samples
    dimensions = [_dimension(name, rule, setting) for name, rule in rules.items()]
    try:
        search = from_dict(SearchConfig, given | {"dimensions": dimensions})
    except ValueError as error:
        named = [value for value in given.values() if repr(value) in str(error)]
        raise ValueError(f"{error}{_hint(named[0]) if named else ''}") from error
    require_effect(setting, [dimension.path for dimension in dimensions])
    _require_fitting_number(search)
    return search


def _require_fitting_number(search: SearchConfig) -> None:
    """Enough trials to say something of every dimension, and no more than anybody means."""
    number, drawn = search.num_trials, [d for d in search.dimensions if d.kind != "grid"]
    require(
        number >= len(drawn),
        f"the space varies {len(drawn)} options, which need {len(drawn)} trials or more to say "
        f"anything, got {number}: raise num_samples, to {10 * len(drawn)} say, or vary fewer.",
    )
    require(
        number <= MOST_TRIALS,
        f"the space has {number:,} trials, and {MOST_TRIALS:,} are the most. List fewer values "
        "under grid or lower num_samples, or take searcher random or optuna, which draw some.",
    )


def _dimension(name: Any, rule: Any, setting: Setting) -> Dimension:
    require_searchable(setting, name)
    require(
        isinstance(rule, dict) and len(rule) == 1,
        f"{name} needs exactly one of {', '.join(KINDS)}, got {reprlib.repr(rule)}.",
    )
    kind, values = next(iter(rule.items()))
    one_of(f"kind of {name}", kind, KINDS)
    require(
        isinstance(values, list) and len(values) > 0,
        f"{name} needs a list of values, got {reprlib.repr(values)}.",
    )
    require(
        len(values) <= MOST_TRIALS,
        f"{name} lists {len(values):,} values, and {MOST_TRIALS:,} trials are the most.",
    )
    for value in values:
        require(_is_plain(value), f"{name} takes {_plain_got(value)}")
    if kind in RANGES:
        values = _ends(name, kind, values)
        for end in values:
            _tried(setting, name, end, kind)
        return Dimension(name, kind, tuple(values))
    tried = [_tried(setting, name, value, kind) for value in values]
    twice = [value for value, number in Counter(tried).items() if number > 1]
    require(not twice, f"{name} lists {twice[:1]} twice; leave one of them.")
    return Dimension(name, kind, tuple(tried))


def _tried(setting: Setting, name: str, value: Any, kind: str) -> Any:
    """The value as the option takes it: a float where YAML has a whole number."""
    try:
        tried = attrgetter(name)(override(setting, {name: value}))
    except ValueError as error:
        whole = kind in ("uniform", "loguniform") and "must be int" in str(error)
        hint = _hint(value) if repr(value) in str(error) else ""
        advice = " Take randint for whole numbers." if whole else hint
        raise ValueError(f"{error}{advice}") from error
    require(name != "training.num_epochs" or tried > 0, f"{name} must be > 0 in a search, got 0.")
    return tried


def _ends(name: str, kind: str, values: list[Any]) -> list[Any]:
    number = int if kind == "randint" else (int, float)
    fits = all(isinstance(value, number) and not isinstance(value, bool) for value in values)
    wanted = "whole numbers" if kind == "randint" else "numbers"
    require(
        len(values) == 2 and fits,
        f"{name}: {kind} needs [low, high] as {wanted}, got {reprlib.repr(values)}."
        f"{''.join(dict.fromkeys(map(_hint, values)))}",
    )
    low, high = values
    most = WHOLE if kind == "randint" else sys.float_info.max
    require(
        abs(low) <= most and abs(high) <= most,  # no comparison holds for nan
        f"{name}: both ends must be finite{', and below 2**53' if kind == 'randint' else ''}, got "
        f"{reprlib.repr(values)}.",
    )
    require(
        low < high,
        f"{name}: low must be below high, got {values!r}. For one value alone write "
        f"{{grid: [{low}]}} or set it for all trials.",
    )
    require(
        kind != "loguniform" or low > 0,
        f"{name}: loguniform needs low > 0, got {low}. Start at a small number, or take uniform.",
    )
    return values if kind == "randint" else [float(low), float(high)]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _plain_got(value: Any) -> str:
    return (
        "numbers, texts, true, false and null, got "
        f"{type(value).__name__} {reprlib.repr(value)}. Put a text in quotes."
    )


def _hint(value: Any) -> str:
    """What YAML 1.1 does to words and numbers that nobody expects; worth a word."""
    if isinstance(value, bool):
        return " YAML reads on, off, yes and no as truth values: put a word in quotes."
    if value is None:
        return " YAML reads null, ~ and nothing at all as no value: write one."
    with suppress(ValueError):
        if isinstance(value, str) and math.isfinite(number := float(value)):
            text = repr(int(number) if number.is_integer() and "." not in value else number)
            text = text if "." in text else text.replace("e", ".0e")
            return f" {value!r} is text in YAML: write {text}, without quotes."
    return ""
