"""A job's options from a mapping, as a YAML file has them: names, types and places are checked."""

import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from t2ipal.config import from_dict, one_of, require
from t2ipal.places import resolve_places

Options = TypeVar("Options")


def options_of(kind: type[Options], values: Mapping[str, Any], flat: object) -> Options:
    """The options of a job from their values.

    Args:
        kind: their dataclass.
        values: by the names of the command line with `_` for `-`; a prefix is a mapping of its own.
        flat: marks fields, in their annotations, whose own fields are options without a prefix.

    Raises:
        ValueError: an unknown name, or a value that the option does not take.
    """
    homes, nested = _homes(kind, flat), dict[str, Any]()
    for name, value in values.items():
        one_of("option", name, homes)
        home, hint = homes[name]
        if not isinstance(value, list | Mapping | None) and _is_tuple(hint):
            value = [value]  # as one word on the command line
        require(
            isinstance(value, str) or not _is_text(hint) or value is None,
            f'{name} must be a text, got {value!r}. Put it in quotes, such as "1:4": without them '
            "YAML reads a number, a date or a truth.",
        )
        place = nested if home is None else nested.setdefault(home, {})
        place[name] = value
    try:
        return resolve_places(from_dict(kind, nested))
    except ValueError as error:
        text = str(error)
        for home in {home for home, _ in homes.values() if home is not None}:
            text = text.removeprefix(f"{home}.")  # which the user did not write
        raise ValueError(text) from error


def option_names(kind: Any, flat: object) -> list[str]:
    """All names that `options_of` takes."""
    return [*_homes(kind, flat)]


def _homes(kind: Any, flat: object) -> dict[str, tuple[str | None, Any]]:
    """Option -> the field that holds it, None for the dataclass itself, and its annotation."""
    homes: dict[str, tuple[str | None, Any]] = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if flat in getattr(hint, "__metadata__", ()):
            own = typing.get_type_hints(hint.__origin__, include_extras=True)
            homes |= {inner: (name, its) for inner, its in own.items()}
        else:
            homes[name] = None, hint
    return homes


def _members(hint: Any) -> tuple[Any, ...]:
    """A type, or those of a union, without what annotates them."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _members(arguments[0])
    if origin is typing.Union or type(hint).__name__ == "UnionType":
        return tuple(member for each in arguments for member in _members(each))
    return (hint,)


def _is_tuple(hint: Any) -> bool:
    return any(typing.get_origin(member) is tuple for member in _members(hint))


def _is_text(hint: Any) -> bool:
    return all(member in (str, type(None)) for member in _members(hint))
