"""Vocabularies: the classes of a data set and the nouns that name them.

Owns the YAML format and its checks. Knows nothing of captions: `nouns.py` turns a vocabulary into
a filter.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from t2ipal.captions.english import inflections, tokenize
from t2ipal.config import require, unknown

PHOTO_PROMPT = "a photo of a {}."
"""CLIP's zero-shot prompt of one class."""
SHARED = "shared.yaml"
"""Synonyms that several vocabularies name."""
_FOLDER = Path(__file__).parent / "vocabularies"
_FIELDS = ("name", "classes", "ignored", "adjectives")
_CLASS_FIELDS = ("name", "prompt", "synonyms", "implies")


@dataclass(frozen=True)
class Vocabulary:
    """Classes in the data set's own order, and the nouns that name them."""

    name: str
    """Name of the data set, e.g. voc2007."""
    class_names: tuple[str, ...]
    """The data set's own names, e.g. tvmonitor."""
    prompt_names: tuple[str, ...]
    """What goes into a prompt, e.g. tv monitor."""
    synonyms: tuple[tuple[str, ...], ...]
    """Singular nouns per class; the class's two names count without being listed."""
    ignored: tuple[str, ...] = ()
    """Nouns that name no class, e.g. dog house; a class that has the same synonym keeps it."""
    implied: tuple[tuple[int, ...], ...] = ()
    """Per class the indices of more classes it names, e.g. dog: animal; empty: none at all."""
    adjectives: bool = False
    """The classes are said of things, as colors are: that "orange" is no fruit does not matter."""

    def __post_init__(self) -> None:
        num_classes = len(self.class_names)
        require(
            num_classes > 0, f"Vocabulary {self.name!r} must have at least one class, got none."
        )
        for field in ("prompt_names", "synonyms", "implied"):
            entries = len(getattr(self, field))
            optional = field == "implied" and entries == 0
            require(
                entries == num_classes or optional,
                f"Vocabulary {self.name!r} has {num_classes} class_names and {entries} {field};"
                " there must be one for each class.",
            )
        twice = sorted({name for name in self.class_names if self.class_names.count(name) > 1})
        require(not twice, f"Vocabulary {self.name!r} names a class twice: {', '.join(twice)}.")
        for first in self.implied:
            require(
                all(0 <= index < num_classes for index in first),
                f"Vocabulary {self.name!r}: implied must be < {num_classes}, got {first}.",
            )
        self.surfaces()

    def surfaces(self) -> dict[tuple[str, ...], int]:
        """Every written form (its tokens) and the class it names, -1 for forms that name none.

        Raises:
            ValueError: two classes claim one form, or a synonym holds no word.
        """
        claimed: dict[tuple[str, ...], int] = {}
        for index, name in enumerate(self.class_names):
            for noun in (name, self.prompt_names[index], *self.synonyms[index]):
                for form in _forms(noun, self.name):
                    owner = claimed.setdefault(form, index)
                    require(
                        owner == index,
                        f"Vocabulary {self.name!r}: {' '.join(form)!r} is claimed by both"
                        f" {self.class_names[owner]!r} and {name!r}; leave it to one of them.",
                    )
        for noun in self.ignored:
            for form in _forms(noun, self.name):
                claimed.setdefault(form, -1)
        for form in list(claimed):
            if len(form) > 1 and "'s" not in form:  # also written as one word: hotdog, cellphone
                claimed.setdefault(("".join(form),), claimed[form])
        return claimed


def _forms(noun: str, vocabulary: str) -> list[tuple[str, ...]]:
    tokens = tuple(tokenize(noun))
    require(bool(tokens), f"Vocabulary {vocabulary!r}: a synonym must hold a word, got {noun!r}.")
    return inflections(tokens)


def load_vocabulary(name_or_path: str | Path) -> Vocabulary:
    """One of the vocabularies of the package, or the one in a YAML file of the same form.

    The form: `name`, `classes` (a list of `name` and optional `prompt`, `synonyms`, `implies`),
    optional `ignored`, and `adjectives: true` where the classes are such. A synonym "@dog" stands
    for the list of that name in vocabularies/shared.yaml; a synonym that another class writes out
    itself is left to that class.

    Raises:
        ValueError: an unknown vocabulary (the nearest is named), or a file of another form.
        FileNotFoundError: the path names no file.
    """
    name = str(name_or_path)
    known = sorted(path.stem for path in _FOLDER.glob("*.yaml") if path.name != SHARED)
    if name in known:
        path = _FOLDER / f"{name}.yaml"
    elif name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise FileNotFoundError(f"No vocabulary file {name}.")
    else:
        raise unknown("vocabulary", name, (*known, "a path ending in .yaml"))
    return _parse(_load_yaml(path), str(name_or_path), _shared())


@cache
def _shared() -> Mapping[str, Any]:
    return _load_yaml(_FOLDER / SHARED)


def _load_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from error


def _parse(content: Any, source: str, shared: Mapping[str, Any]) -> Vocabulary:
    require(
        isinstance(content, Mapping),
        f"{source} must hold a mapping with classes, got {content!r:.80}.",
    )
    for field in content:
        if field not in _FIELDS:
            raise unknown(f"field in {source}", field, _FIELDS)
    name = content.get("name", Path(source).stem)
    require(isinstance(name, str), f"{source}: name must be a text, got {name!r}.")
    adjectives = content.get("adjectives", False)
    require(
        isinstance(adjectives, bool),
        f"{source}: adjectives must be true or false, got {adjectives!r}.",
    )
    entries = content.get("classes")
    require(
        isinstance(entries, list) and bool(entries),
        f"{source}: classes must be a list of at least one class, got {entries!r:.80}.",
    )
    classes = [
        _parse_class(entry, f"{source}: class {at}") for at, entry in enumerate(entries or [])
    ]
    class_names = tuple(entry["name"] for entry in classes)
    written = {
        synonym
        for entry in classes
        for synonym in (entry["name"], *entry["synonyms"])
        if synonym[:1] != "@"
    }
    return Vocabulary(
        name=name,
        class_names=class_names,
        prompt_names=tuple(entry["prompt"] for entry in classes),
        synonyms=tuple(_expand(entry, written, shared["synonyms"], source) for entry in classes),
        ignored=tuple(
            dict.fromkeys(_flat(content.get("ignored", []), f"{source}: ignored", nested=True))
            | dict.fromkeys(_flat(shared["ignored"], "shared ignored", nested=True))
        ),
        implied=tuple(_implied(entry, class_names, source) for entry in classes),
        adjectives=adjectives,
    )


def _parse_class(entry: Any, place: str) -> dict[str, Any]:
    if isinstance(entry, str):
        entry = {"name": entry}
    require(
        isinstance(entry, Mapping), f"{place} must be a name or a mapping with name, got {entry!r}."
    )
    for field in entry:
        if field not in _CLASS_FIELDS:
            raise unknown(f"field in {place}", field, _CLASS_FIELDS)
    name = entry.get("name")
    require(
        isinstance(name, str) and bool(name.strip()),
        f"{place} must have a name (a text), got {name!r}.",
    )
    place = f"{place} ({name})"
    prompt = entry.get("prompt", name)
    require(
        isinstance(prompt, str) and bool(prompt.strip()),
        f"{place}: prompt must be a text, got {prompt!r}.",
    )
    return {
        "name": name,
        "prompt": prompt,
        "synonyms": _flat(entry.get("synonyms", []), f"{place}: synonyms"),
        "implies": _flat(entry.get("implies", []), f"{place}: implies"),
    }


def _flat(values: Any, place: str, nested: bool = False) -> list[str]:
    require(isinstance(values, list), f"{place} must be a list of texts, got {values!r}.")
    flat: list[str] = []
    for value in values:
        if nested and isinstance(value, list):
            flat += _flat(value, place)
        else:
            require(
                isinstance(value, str),
                f"{place} must be a list of texts, got {value!r}; quote words like 'no'.",
            )
            flat.append(value)
    return flat


def _expand(
    entry: Mapping[str, Any], written: Iterable[str], shared: Mapping[str, list[str]], source: str
) -> tuple[str, ...]:
    synonyms: dict[str, None] = {}
    for synonym in entry["synonyms"]:
        if not synonym.startswith("@"):
            synonyms[synonym] = None
            continue
        if synonym[1:] not in shared:
            raise unknown(f"shared list in {source}, class {entry['name']!r}:", synonym[1:], shared)
        # Left out where a class writes the word itself: a bride names the class wedding.
        synonyms |= dict.fromkeys(word for word in shared[synonym[1:]] if word not in written)
    return tuple(synonyms)


def _implied(
    entry: Mapping[str, Any], class_names: tuple[str, ...], source: str
) -> tuple[int, ...]:
    for name in entry["implies"]:
        if name not in class_names:
            raise unknown(f"class in {source}, {entry['name']!r} implies", name, class_names)
    return tuple(class_names.index(name) for name in entry["implies"])


def photo_prompts(prompt_names: Sequence[str]) -> list[str]:
    """`PHOTO_PROMPT` of each class."""
    return [PHOTO_PROMPT.format(name) for name in prompt_names]
