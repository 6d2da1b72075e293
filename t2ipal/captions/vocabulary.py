"""Vocabularies: the classes of a data set and the nouns that name them.

Knows no files (`vocabulary_files.py`) and nothing of captions: `nouns.py` turns a vocabulary into a
filter.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from t2ipal.captions.english import inflections, singulars, tokenize
from t2ipal.captions.words import CLOSED
from t2ipal.config import listed, require

PHOTO_PROMPT = "a photo of a {}."
"""CLIP's zero-shot prompt of one class."""
SHOWN_CLASSES = 50
SHOWN_WORDS = 12


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
            ValueError: two classes have one form, or a synonym holds no word.
        """
        forms = self._forms()
        for form in list(forms):
            if len(form) > 1 and "'s" not in form:  # also written as one word: hotdog, cellphone
                forms.setdefault(("".join(form),), forms[form])
        return forms

    def _forms(self) -> dict[tuple[str, ...], int]:
        """Those in separate words.

        A class has the words of its name as its own, and claims two kinds of further ones where no
        class has them: those of a name with a qualifier, bow_(weapon), unless another class claims
        them too, and the singular of a name in the plural.
        """
        owned: dict[tuple[str, ...], int] = {}
        claims: dict[tuple[str, ...], set[int]] = {}
        for index, name in enumerate(self.class_names):
            for noun in (name, self.prompt_names[index], *self.synonyms[index]):
                for tokens, qualified in nouns_of_name(noun, self.name):
                    for form in () if qualified else inflections(tokens):
                        owner = owned.setdefault(form, index)
                        require(
                            owner == index,
                            f"Vocabulary {self.name!r}: {' '.join(form)!r} is claimed by both"
                            f" {self.class_names[owner]!r} and {name!r}; leave it to one of them.",
                        )
                    for form in (*singulars(tokens), *(inflections(tokens) if qualified else ())):
                        claims.setdefault(form, set()).add(index)
        for form, classes in claims.items():
            if len(classes) == 1:
                owned.setdefault(form, min(classes))
        for noun in self.ignored:
            for tokens, _ in nouns_of_name(noun, self.name):
                for form in inflections(tokens):
                    owned.setdefault(form, -1)
        return owned

    def describe(self) -> str:
        """The classes and the words that are looked for, for a person."""
        words: list[list[str]] = [[] for _ in self.class_names]
        for form, index in self._forms().items():
            text = " ".join(form).replace(" '", "'")
            if index >= 0 and text.removesuffix("es") not in words[index]:  # helmets: helmetses
                words[index].append(text)
        return "; ".join(
            f"{name}: {listed(found, SHOWN_WORDS) or 'no word of its own, add synonyms'}"
            for name, found in zip(self.class_names[:SHOWN_CLASSES], words)
        ) + (f"; and {len(words) - SHOWN_CLASSES} more" if len(words) > SHOWN_CLASSES else "")


def nouns_of_name(text: str, vocabulary: str) -> list[tuple[tuple[str, ...], bool]]:
    """The nouns that a name stands for, as tokens, and whether a qualifier tells its sense.

    bow_(weapon) is a bow; "sofa, couch" and car/truck are one or the other; TrafficLight is two
    words.
    """
    plain = re.sub(r"[(\[][^)\]]*[)\]]", " ", text)
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain)
    nouns = [tuple(tokenize(part)) for part in re.split(r"[,;/|]", plain)]
    nouns = [tokens for tokens in nouns if tokens]
    if len(nouns) > 1 and any(len("".join(n)) == 1 or {*n} <= CLOSED for n in nouns):  # A/C unit
        nouns = [tuple(token for tokens in nouns for token in tokens)]
    require(bool(nouns), f"Vocabulary {vocabulary!r}: a synonym must hold a word, got {text!r}.")
    return [(tokens, "(" in text) for tokens in nouns]


def photo_prompts(prompt_names: Sequence[str]) -> list[str]:
    """`PHOTO_PROMPT` of each class."""
    return [PHOTO_PROMPT.format(name) for name in prompt_names]
