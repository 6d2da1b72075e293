"""The noun filter: which classes of a vocabulary a caption names.

Owns matching (compounds before single words) and the verdict; `english.py` the rules of English,
`filtering.py` runs the filter over files. No file is read at run time but the vocabulary.
"""

import re
from dataclasses import dataclass

from t2ipal.captions import english, words
from t2ipal.captions.senses import SENSES
from t2ipal.captions.tokens import fits
from t2ipal.captions.vocabulary import Vocabulary
from t2ipal.config import require

CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
"""What is in no sentence; white space apart."""


@dataclass(frozen=True)
class Verdict:
    """What the filter says of one caption."""

    labels: tuple[int, ...]
    """Class indices, sorted; empty when rejected."""
    reason: str
    """Why the caption is rejected; empty when kept."""


class NounFilter:
    """Turns a caption into the classes it names.

    Longest compound first; then a noun is dropped where it is a verb, a color, only describes
    another noun, is negated or only likened. A rejected caption says why.
    """

    def __init__(self, vocabulary: Vocabulary, max_words: int = 60):
        """Compiles the vocabulary.

        Args:
            vocabulary: its classes and nouns.
            max_words: longest caption kept, in words and punctuation. Nor is one kept of more
                tokens than CLIP reads: a noun behind them would label what no text encoder sees.
        """
        require(max_words > 0, f"max_words must be > 0, got {max_words}.")
        self.vocabulary = vocabulary
        self.max_words = max_words
        # First word -> (number of words, the words, classes that they name), longest first.
        self._by_first_word: dict[str, list[tuple[int, list[str], tuple[int, ...]]]] = {}
        for form, named in sorted(_named_by_form(vocabulary).items()):
            self._by_first_word.setdefault(form[0], []).append((len(form), list(form), named))
        for forms in self._by_first_word.values():
            forms.sort(key=lambda form: -form[0])

    def __call__(self, text: str) -> Verdict:
        """The verdict on one caption."""
        if not text.isprintable() and CONTROL.search(text):
            return Verdict((), "control character")
        tokens = english.tokenize(text)
        if not any(token[0].isalnum() for token in tokens):
            return Verdict((), "empty")
        if len(tokens) > self.max_words or not fits(text):
            return Verdict((), "too long")
        labels: set[int] = set()
        negated: list[int] = []
        other_sense: list[int] = []
        for at, end, named in self._matches(tokens):
            if not (self.vocabulary.adjectives or _is_the_thing(tokens, at, end)):
                other_sense.append(named[0])
                continue
            under = english.scope(tokens, at)
            if under == "negated":
                negated.append(named[0])
            elif under:
                other_sense.append(named[0])
            else:
                labels.update(named)
        if labels:
            return Verdict(tuple(sorted(labels)), "")
        for reason, indices in (("only negated", negated), ("only in another sense", other_sense)):
            if indices:
                names = (self.vocabulary.class_names[index] for index in sorted(set(indices)))
                return Verdict((), f"{reason}: {', '.join(names)}")
        return Verdict((), "no class named")

    def classes_of(self, index: int) -> tuple[int, ...]:
        """A class and all that naming it names too."""
        implied = self.vocabulary.implied
        return _closure(index, implied) if implied else (index,)

    def _matches(self, tokens: list[str]) -> list[tuple[int, int, tuple[int, ...]]]:
        """First token, end and classes of every noun of the vocabulary, left to right."""
        matches: list[tuple[int, int, tuple[int, ...]]] = []
        start, by_first_word = 0, self._by_first_word
        for at, token in enumerate(tokens):
            if at < start or token not in by_first_word:
                continue
            for length, form, named in by_first_word[token]:
                end = at + length
                if length == 1 or tokens[at:end] == form:
                    if not named and _ends_in_a_verb(tokens, end):
                        continue
                    start = end
                    if named:
                        matches.append((at, end, named))
                    break
        return matches


def _named_by_form(vocabulary: Vocabulary) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Every written form and the classes it names; none for forms that name something else."""
    implied = vocabulary.implied or ((),) * len(vocabulary.class_names)
    surfaces = vocabulary.surfaces()
    named = {
        form: () if index < 0 else _closure(index, implied) for form, index in surfaces.items()
    }
    for doer, thing in words.THING_OF_A_DOER.items():
        used = named.get(tuple(thing.split()), ())
        for form in english.inflections(tuple(doer.split())):
            if used and surfaces.get(form) != -1:
                own = named.get(form) or named.get(form[-1:], ())
                named[form] = tuple(dict.fromkeys(own + used))
    return named


def _closure(index: int, implied: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """The class and everything it implies, directly or through another class."""
    named = [index]
    for known in named:
        named += [other for other in implied[known] if other not in named]
    return tuple(named)


def _ends_in_a_verb(tokens: list[str], end: int) -> bool:
    """Whether the compound that ends before `end` is none, as in "a bus stops"."""
    return tokens[end - 1] in words.LAST_VERBS and english.is_predicate(tokens, end - 1)


def _is_the_thing(tokens: list[str], at: int, end: int) -> bool:
    """Whether the noun at `at:end` stands for an object in the picture."""
    if end == at + 1:
        word = tokens[at]
        if word in words.OFTEN_MODIFIERS and not english.heads_its_phrase(tokens, end):
            return False
        if word in words.COLOR_NOUNS and english.is_color(tokens, at):
            return False
        if word in words.VERB_FORMS and english.is_verb(tokens, at):
            return False
        if word in SENSES and not SENSES[word](tokens, at):
            return False
    if (
        tokens[end : end + 1] == ["'s"]
        and tokens[end + 1 : end + 2]
        and tokens[end + 1] in words.ROOMS
    ):
        return False
    return not english.is_unreal(tokens, at, end)
