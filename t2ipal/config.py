"""What the stages' frozen configs share: checks, overrides by dotted name, JSON, fingerprint.

Owns nothing about any particular stage; knows dataclasses and plain values only.
"""

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

Config = TypeVar("Config")
ADDED = "added"
"""Key of a field's metadata, see `added`."""


def require(holds: bool, message: str) -> None:
    """Raises ValueError with `message` unless `holds`; for what a user hands in."""
    if not holds:
        raise ValueError(message)


def unknown(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """The error for a name that is not one of `known`, naming the nearest match."""
    names = sorted(known)
    nearest = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return ValueError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")


def one_of(kind: str, name: str, known: Iterable[str]) -> None:
    """Raises ValueError with the nearest match unless `name` is one of `known`."""
    names = list(known)
    if name not in names:
        raise unknown(kind, name, names)


def added(default: Any) -> Any:
    """A field that came when runs were stored already; its default is what those were made with.

    `to_dict` leaves it out at that default, and `from_dict` fills it in: what runs were compared
    and fingerprinted by stays as it was.
    """
    return dataclasses.field(default=default, metadata={ADDED: True})


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy of `config` with dotted fields replaced, e.g. `{"optim.lr": 1e-2}`.

    Raises:
        ValueError: a name that is no field (the nearest one is named), or a value of another type.
    """
    instance: Any = config
    values = json.loads(json.dumps(dataclasses.asdict(instance)))  # `added` fields too
    for path, value in changes.items():
        one_of("option", path, field_paths(config))
        *parents, name = path.split(".")
        place = values
        for parent in parents:
            place = place[parent]
        place[name] = value
    return from_dict(type(config), values)


def field_paths(config: Any, prefix: str = "") -> list[str]:
    """Every dotted field name of a dataclass instance, nested ones included."""
    if not dataclasses.is_dataclass(config):
        return []
    paths: list[str] = []
    for field in dataclasses.fields(config):
        nested = getattr(config, field.name)
        inner = field_paths(nested, f"{prefix}{field.name}.")
        paths += inner or [prefix + field.name]
    return paths


def _coerce(value: Any, hint: Any, path: str) -> Any:
    """Turns what JSON or YAML gives (lists, ints for floats, dicts) into the annotated type."""
    if hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        hint = next(argument for argument in arguments if argument is not type(None))
        return _coerce(value, hint, path)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(typing.cast(type, hint), value, f"{path}.")
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_coerce(item, arguments[0], path) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = origin or hint
    wrong = isinstance(plain, type) and not isinstance(value, plain)
    if wrong or (plain in (int, float) and isinstance(value, bool)):
        raise ValueError(f"{path} must be {getattr(hint, '__name__', hint)}, got {value!r}.")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """Plain dicts, lists and numbers that `json.dumps` takes and `from_dict` reads back."""
    return json.loads(json.dumps(config, default=_told_fields))


def _told_fields(config: Any) -> dict[str, Any]:
    """The values of a dataclass but for those of `added` fields that are at their default."""
    values = {field: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        field.name: value
        for field, value in values.items()
        if not (ADDED in field.metadata and value == field.default)
    }


def from_dict(kind: type[Config], values: Mapping[str, Any], prefix: str = "") -> Config:
    """The dataclass `kind` from what `to_dict` gave; unknown names raise with the nearest match.

    Args:
        kind: the dataclass.
        values: its fields; those left out take their defaults.
        prefix: dotted name of where it sits in a larger config, for error messages.
    """
    hints = typing.get_type_hints(kind)
    for name in values:
        one_of(f"field of {kind.__name__}", name, hints)
    return kind(**{n: _coerce(value, hints[n], prefix + n) for n, value in values.items()})


def fingerprint(values: Any) -> str:
    """First 16 hex digits of the sha256 of a config's (or plain value's) canonical JSON."""
    plain = to_dict(values) if dataclasses.is_dataclass(values) else values
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    prefix: str = "",
    defaults: Mapping[str, Any] | None = None,
) -> list[str]:
    """One line per dotted name whose value differs, e.g. `guidance_scale: 2.0 there, 3.0 here`.

    Args:
        ours: the values here.
        theirs: the values there.
        prefix: of every name.
        defaults: the values of names that one side leaves out, as `to_dict` does with `added` ones.
    """
    lines: list[str] = []
    defaults = defaults or {}
    for name in sorted({*ours, *theirs}):
        here, there = (values.get(name, defaults.get(name)) for values in (ours, theirs))
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            lines += differences(here, there, f"{prefix}{name}.", defaults.get(name))
        elif here != there:
            lines.append(f"{prefix}{name}: {there!r} there, {here!r} here")
    return lines
