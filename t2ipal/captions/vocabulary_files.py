"""Files of vocabularies: the YAML form and its checks, and plain lists of names."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from t2ipal.captions.vocabulary import Vocabulary
from t2ipal.config import read_yaml, require, unknown

SHARED = "shared.yaml"
"""Synonyms that several vocabularies name."""
_FOLDER = Path(__file__).parent / "vocabularies"
_FIELDS = ("name", "classes", "ignored", "adjectives")
_CLASS_FIELDS = ("name", "prompt", "synonyms", "implies")


def load_vocabulary(name_or_path: str | Path) -> Vocabulary:
    """One of the vocabularies of the package, or the one in a file: YAML, or a class a line.

    The form of a YAML: `name`, `classes` (a list of `name` and optional `prompt`, `synonyms`,
    `implies`), optional `ignored`, and `adjectives: true` where the classes are such. A
    synonym "@dog" stands for the list of that name in vocabularies/shared.yaml; a synonym that
    another class writes out itself is left to that class.

    Raises:
        ValueError: an unknown vocabulary (the nearest is named), or a file of another form.
        FileNotFoundError: the path names no file.
    """
    name = str(name_or_path)
    known = sorted(path.stem for path in _FOLDER.glob("*.yaml") if path.name != SHARED)
    if name in known:
        path = _FOLDER / f"{name}.yaml"
    elif is_vocabulary_file(name):
        path = Path(name).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"No vocabulary file {name}.")
    else:
        raise unknown("vocabulary", name, (*known, "a path ending in .yaml or .txt"))
    content = _lines(path) if path.suffix == ".txt" else read_yaml(path)
    return _parse(content, name, _shared())


def is_vocabulary_file(name: str) -> bool:
    """Whether it names a file, not a vocabulary of the package."""
    return name.endswith((".yaml", ".yml", ".txt"))


def _lines(path: Path) -> dict[str, list[str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text: {error.reason}.") from error
    return {"classes": [line.strip() for line in lines if line.strip()]}


@cache
def _shared() -> Mapping[str, Any]:
    return read_yaml(_FOLDER / SHARED)


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
        isinstance(entry, Mapping),
        f"{place} must be a name or a mapping with name, got {entry!r}; quote words like 'no' and "
        "numbers.",
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
    prompt = entry.get("prompt", " ".join(name.replace("_", " ").split()))
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
