"""What the stages' frozen configs share: checks, overrides by dotted name, JSON, fingerprint.

A field's annotation is the one place that says what the field takes: its type, `Literal` choices,
`Bounds`. Owns nothing about any particular stage; knows dataclasses and plain values only.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar

Config = TypeVar("Config")
ADDED = "added"
"""Key of a field's metadata, see `added`."""
SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "a multiple of"}
MOST_YAML_VALUES = 1_000_000
"""Of a file, each alias counted as what it repeats: a file of some lines can stand for more than a
memory holds."""
Reader = Callable[[Any, str, bool], Any]
"""Gives a value that fits an annotation, or raises; takes it, its dotted name, and whether to
convert what JSON or YAML hand over: lists, ints for floats, dicts."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What a number must hold, as `Annotated[float, Bounds(ge=0)]`; in a tuple, each number."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    multiple_of: int | None = None

    def hold(self, value: float) -> bool:
        """Whether `value` lies inside."""
        return (
            (self.gt is None or value > self.gt)
            and (self.ge is None or value >= self.ge)
            and (self.lt is None or value < self.lt)
            and (self.le is None or value <= self.le)
            and (self.multiple_of is None or value % self.multiple_of == 0)
        )

    def __str__(self) -> str:
        """What comes after "must be" in an error."""
        match {name: end for name, end in vars(self).items() if end is not None}:
            case {"ge": low, "le": high, **others} if not others:
                return f"in {low}..{high}"
            case {"gt": low, "lt": high, **others} if not others:
                return f"between {low} and {high}"
            case {"gt": 0, "multiple_of": step, **others} if not others:
                return f"a positive multiple of {step}"
            case ends:
                return " and ".join(f"{SIGNS[name]} {end}" for name, end in ends.items())


PositiveInt = Annotated[int, Bounds(gt=0)]
NonNegativeInt = Annotated[int, Bounds(ge=0)]
PositiveFloat = Annotated[float, Bounds(gt=0)]
NonNegativeFloat = Annotated[float, Bounds(ge=0)]
Share = Annotated[float, Bounds(ge=0, le=1)]


def require(holds: bool, message: str) -> None:
    """Raises ValueError with `message` unless `holds`; for what a user hands in."""
    if not holds:
        raise ValueError(message)


def unknown(kind: str, name: object, known: Iterable[Any]) -> ValueError:
    """The error for a name that is not one of `known`, naming the nearest match."""
    names = sorted(map(str, known))
    lower = {known_name.lower(): known_name for known_name in names}
    nearest = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.4)
    hint = f" Did you mean {lower[nearest[0]]!r}?" if nearest else ""
    return ValueError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")


def listed(names: Sequence[str], most: int, rest: str = "more") -> str:
    """Names to read, and how many there are beside the first ones: a, b and 3 more."""
    beyond = len(names) - most
    return ", ".join(names[:most]) + (f" and {beyond:,} {rest}" if beyond > 0 else "")


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


def parse_json(text: str | bytes, *, strict: bool = True) -> Any:
    """What JSON says.

    Args:
        text: to read.
        strict: refuse control characters in its texts.

    Raises:
        ValueError: it is no JSON, or nested so deep that Python cannot read it.
    """
    try:
        return json.loads(text, strict=strict)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        ValueError: it is no YAML, or a key stands twice in it, of which YAML would keep the last.
    """
    import yaml  # here, so that what never reads YAML does not wait for it

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: list[Any] = []
            for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                key = self.construct_object(key_node, deep=True)
                if key in seen:
                    text = f"the key {key!r} stands twice; leave one of them"
                    raise yaml.constructor.ConstructorError(None, None, text, key_node.start_mark)
                seen.append(key)
            return super().construct_mapping(node, deep)

        def get_single_node(self) -> Any:
            node = super().get_single_node()
            few = _num_values(node, {}) <= MOST_YAML_VALUES
            require(few, f"its aliases stand for more than {MOST_YAML_VALUES:,} values")
            return node

    try:
        return yaml.load(path.read_bytes(), Strict)
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark, error.problem or error.context
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        hint = " Indent with spaces, not with tabs." if "'\\t'" in str(problem) else ""
        raise ValueError(f"{path} is no YAML: {problem}{place}.{hint}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # no such day, too deep
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except (AttributeError, LookupError, TypeError) as error:  # PyYAML's, where a tag does not fit
        raise ValueError(f"{path} is no YAML: a value does not fit its !!tag.") from error


def _num_values(node: Any, known: dict[Any, float]) -> float:
    """Values that a YAML node stands for, each alias counted as what it repeats."""
    if node not in known:
        known[node] = 0  # where it holds itself: no more values than there are
        inner: Any = () if node is None or isinstance(node.value, str) else node.value
        parts = [part for each in inner for part in (each if isinstance(each, tuple) else (each,))]
        known[node] = 1 + sum(_num_values(part, known) for part in parts)
    return known[node]


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """`name=value` words as a mapping; values are read as YAML, and 1e-3 as a number too."""
    import yaml  # here, so that what never reads changes does not wait for it

    values: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        require(bool(equals), f"A change must read name=value, got {change!r}.")
        require(name not in values, f"The change of {name} is given twice; leave one of them.")
        try:
            values[name] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ValueError(f"{change!r} has no value that YAML can read: {error}") from error
        if isinstance(values[name], str):
            with suppress(ValueError):  # YAML 1.1 takes 1e-3 for text
                values[name] = float(text)
    return values


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
    readers = _readers(kind)
    for name in values:
        one_of(f"field of {kind.__name__}", name, readers)
    for field in dataclasses.fields(typing.cast(Any, kind)):
        required = field.default is field.default_factory is dataclasses.MISSING
        given = field.name in values or not required
        require(given, f"{prefix}{field.name} of {kind.__name__} must be given, got nothing.")
    return kind(**{n: readers[n](value, prefix + n, True) for n, value in values.items()})


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


def check_fields(config: Any) -> None:
    """Holds every field of a dataclass against its annotation; for its `__post_init__`.

    An int passes for a float; nothing else passes for what it is not, and nothing is converted.

    Raises:
        ValueError: a value of another type, an unknown choice, a number out of bounds, nan or inf.
    """
    for name, read in _readers(type(config)).items():
        read(getattr(config, name), name, False)


@cache
def _readers(kind: type) -> dict[str, Reader]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: _reader(hints[field.name]) for field in dataclasses.fields(kind)}


def _reader(hint: Any) -> Reader:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        bounds = [extra for extra in arguments[1:] if isinstance(extra, Bounds)]
        inner = _reader(arguments[0])
        return partial(_read_bounded, inner, bounds) if bounds else inner
    if origin is Literal:
        return partial(_read_choice, arguments)
    if origin in (typing.Union, types.UnionType):
        members = [(_plain(hint), _reader(hint)) for hint in arguments if hint is not NoneType]
        return partial(_read_union, members, NoneType in arguments)
    if origin is tuple:
        items = [_reader(item) for item in arguments if item is not ...]
        return partial(_read_tuple, items, ... in arguments)
    if origin in (dict, Mapping):
        return partial(_read_mapping, origin, *map(_reader, arguments))
    return partial(_read_plain, _plain(hint))


def _read_plain(kind: type, value: Any, path: str, convert: bool) -> Any:
    if kind is float and _is(value, int):
        require(abs(value) <= sys.float_info.max, f"{path} must be finite, got a huge number.")
        return float(value) if convert else value
    if convert and dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return from_dict(kind, value, f"{path}.")
    if not _is(value, kind):
        raise ValueError(f"{path} must be {kind.__name__}, got {value!r}.")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{path} must be finite, got {value}.")
    return value


def _read_bounded(inner: Reader, bounds: list[Bounds], value: Any, path: str, convert: bool) -> Any:
    value = inner(value, path, convert)
    for number in value if isinstance(value, tuple) else (value,):
        for bound in bounds:
            if isinstance(number, int | float) and not bound.hold(number):
                raise ValueError(f"{path.split('.')[-1]} must be {bound}, got {number}.")
    return value


def _read_choice(choices: tuple[Any, ...], value: Any, path: str, convert: bool) -> Any:
    if not any(value == choice and _is(value, type(choice)) for choice in choices):
        raise unknown(path.split(".")[-1].replace("_", " "), value, choices)
    return value


def _read_tuple(items: list[Reader], alike: bool, value: Any, path: str, convert: bool) -> Any:
    if not isinstance(value, list | tuple if convert else tuple):
        raise ValueError(f"{path} must be tuple, got {value!r}.")
    if not alike and len(value) != len(items):
        raise ValueError(f"{path} must have {len(items)} values, got {value!r}.")
    readers = items * len(value) if alike else items
    return tuple([read(item, path, convert) for read, item in zip(readers, value)])


def _read_mapping(
    kind: type, key: Reader, item: Reader, value: Any, path: str, convert: bool
) -> Any:
    pairs = _read_plain(kind, value, path, convert).items()
    return {key(k, f"{path}.{k}", convert): item(v, f"{path}.{k}", convert) for k, v in pairs}


def _read_union(
    members: list[tuple[type, Reader]], optional: bool, value: Any, path: str, convert: bool
) -> Any:
    if optional and value is None:
        return None
    if len(members) == 1:
        return members[0][1](value, path, convert)
    configs = [kind for kind, _ in members if dataclasses.is_dataclass(kind)]
    if convert and configs and isinstance(value, Mapping):
        return from_dict(_tagged(configs, value, path), value, f"{path}.")
    errors = []
    for kind, read in sorted(members, key=lambda member: not _is(value, member[0])):
        try:  # first as what it is: an int stays an int where floats are taken too
            return read(value, path, convert)
        except ValueError as error:
            errors += [error] if _is(value, kind) else []
    names = " | ".join(dict.fromkeys(kind.__name__ for kind, _ in members))
    raise errors[0] if errors else ValueError(f"{path} must be {names}, got {value!r}.")


def _tagged(kinds: list[type], values: Mapping[str, Any], path: str) -> type:
    """Which of some configs `values` is, by the field in which each has a `Literal` of its own."""
    if len(kinds) == 1:
        return kinds[0]
    hints = [typing.get_type_hints(kind) for kind in kinds]
    name = next(name for name in hints[0] if all(_is_tag(own.get(name)) for own in hints))
    members = {typing.get_args(own[name])[0]: kind for own, kind in zip(hints, kinds)}
    fields = [(tag, kind.__dataclass_fields__[name]) for tag, kind in members.items()]
    absent = next((tag for tag, field in fields if ADDED in field.metadata), None)
    tag = values.get(name, absent)
    require(tag is not None, f"{path}.{name} must be one of {', '.join(members)}, got nothing.")
    one_of(name.replace("_", " "), tag, members)
    return members[tag]


def _is_tag(hint: Any) -> bool:
    return typing.get_origin(hint) is Literal and len(typing.get_args(hint)) == 1


def _is(value: Any, kind: type) -> bool:
    """isinstance, but a bool is no number."""
    return isinstance(value, kind) and not (isinstance(value, bool) and kind in (int, float))


def _plain(hint: Any) -> type:
    """The type of the values that `hint` takes; object where nothing is known."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _plain(arguments[0])
    plain = type(arguments[0]) if origin is Literal else origin or hint
    return plain if isinstance(plain, type) and plain is not Any else object
