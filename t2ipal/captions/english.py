"""Rules of English for the noun filter: tokens, plurals, and what a noun does in its sentence.

Owns word-level functions; knows no vocabulary and no class. `words.py` holds the lists they lean
on.
"""

import re
import unicodedata

from t2ipal.captions import words

_TOKEN = re.compile(r"[^\W_]+|'[a-z]+|[.,;:!?()\"]")
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u2032\uff07`\u00b4", "'"))
_SIGNS = str.maketrans(dict.fromkeys("\u2122\u00ae\u00a9", " "))
"""What would become letters of the word before it."""
_INSIDE_WORDS = re.compile("[\u0300-\u036f\u00ad\u200b-\u200d\u2060\ufeff]")
"""Accents on their own, soft hyphens and what has no width."""


def tokenize(text: str) -> list[str]:
    """Lower-case words, numbers, clitics ("'s") and punctuation; hyphens and slashes split.

    One word in several forms of Unicode is one: with and without accents, full width, ligatures.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES).translate(_SIGNS))
        text = _INSIDE_WORDS.sub("", text)
    return _TOKEN.findall(text.lower().replace("&", " and "))


def plural(noun: str) -> str:
    """The plural of a singular noun, e.g. man: men, puppy: puppies, bus: buses, knife: knives."""
    if noun in words.IRREGULAR_PLURALS:
        return words.IRREGULAR_PLURALS[noun]
    if noun.endswith("man") and noun not in words.NOT_MEN:  # fisherman, snowman
        return noun[:-3] + "men"
    if noun.endswith(("s", "x", "z", "ch", "sh")) or noun in words.PLURAL_IN_OES:
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def singulars(noun: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The singular of a noun of words in the plural, safety vests: safety vest; else nothing."""
    last, found = noun[-1], []
    if last not in words.PLURAL_ONLY and len(last) > 3 and not last.endswith("us"):
        endings = (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man"))
        stems = [last.removesuffix(end) + new for end, new in endings if last.endswith(end)]
        irregular = [one for one, many in words.IRREGULAR_PLURALS.items() if one != many]
        found = [stem for stem in (*stems, *irregular) if stem != last and plural(stem) == last]
    return [(*noun[:-1], stem) for stem in dict.fromkeys(found)]


def inflections(noun: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Singular and plural of a noun of words; its head stands last, or before `of` or `in`."""
    head = next(
        (at - 1 for at, word in enumerate(noun) if at and word in ("of", "in")), len(noun) - 1
    )
    forms = [noun[head], plural(noun[head])]
    if noun[head] in words.SECOND_PLURALS:
        forms.append(words.SECOND_PLURALS[noun[head]])
    return [(*noun[:head], form, *noun[head + 1 :]) for form in dict.fromkeys(forms)]


def is_verb(tokens: list[str], at: int) -> bool:
    """Whether the noun-or-verb at `at` is used as a verb ("to train", "ties a knot")."""
    word = tokens[at]
    before = tokens[at - 1] if at else ""
    after = tokens[at + 1] if at + 1 < len(tokens) else ""
    base = word in words.NOUN_OR_VERB
    if base and before == "to":
        return at < 2 or tokens[at - 2] not in words.TO_AS_PREPOSITION
    if base and before in words.MODALS:
        return True
    if not base and before in words.RELATIVE:  # "water that sinks"
        return True
    if before in words.SUBJECTS and (base or word.endswith("s")):
        return after in words.VERB_OBJECTS
    return False


def heads_its_phrase(tokens: list[str], end: int) -> bool:
    """Whether the noun that ends before `end` is not just describing a noun behind it."""
    if end >= len(tokens):
        return True
    after = tokens[end]
    if after in words.CLOSED or after in words.FINITE_VERBS:
        return True
    if after.endswith("s") and tokens[end - 1] in words.SINGLE_PERSONS:
        # "a family dines": behind an article for one thing, what ends in s is a verb and no plural.
        return any(
            word in ("a", "an", "one", "another") for word in tokens[max(0, end - 3) : end - 1]
        )
    return _is_participle(after)


def _is_participle(word: str) -> bool:
    return word.endswith("ing") and word not in words.NOT_PARTICIPLES


def is_color(tokens: list[str], at: int) -> bool:
    """Whether a noun that is a color too ("orange") is used as the color."""
    before = tokens[at - 1] if at else ""
    two_before = tokens[at - 2] if at > 1 else ""
    after = tokens[at + 1 : at + 3]
    return (
        before in words.BEFORE_A_COLOR
        or before in words.COLORS
        or (before in ("and", "or", ",") and two_before in words.COLORS)
        or (len(after) == 2 and after[0] in ("and", "or", ",") and after[1] in words.COLORS)
    )


def is_unreal(tokens: list[str], at: int, end: int) -> bool:
    """Whether the noun at `at:end` is a toy, a picture, or describes another ("dog costume")."""
    after, beyond = (*tokens[end : end + 2], "", "")[:2]
    if after in words.NOT_THE_THING and beyond != "like":  # but "a cake shaped like a bear"
        return True
    if after == "crossing" and beyond in ("sign", "signs"):
        return True
    if after == "like" and beyond not in words.CLOSED and beyond:  # "a dog like animal"
        return True
    if tokens[at] in words.TOYS:
        return False
    before, two_before = tokens[at - 1] if at else "", tokens[at - 2] if at > 1 else ""
    if "for" in (before, two_before if before in words.PLAIN_ADJECTIVES | words.NUMBERS else ""):
        return True  # "a table set for two people", "books for young children"
    return before in words.UNREAL or (
        before in words.PLAIN_ADJECTIVES and two_before in words.UNREAL
    )


def scope(tokens: list[str], at: int) -> str:
    """What a noun stands under: "negated" ("no dog"), "likened" ("statue of a dog") or ""."""
    verb = ""
    for back in range(at - 1, max(-1, at - 9), -1):
        word = tokens[back]
        before = tokens[back - 1] if back else ""
        if word in words.NEGATORS:
            beyond = tokens[back + 1]
            if beyond in words.NEVER_NEGATE or (word == "no" and (verb or _is_participle(beyond))):
                return ""
            # "not wearing a tie" denies the tie, "not watching the dog" does not deny the dog.
            return "" if verb and verb not in words.HOLDING | words.AUXILIARIES else "negated"
        if word in words.RESEMBLE or (word in ("like", "as") and before in words.LIKENESS):
            return "" if verb else "likened"
        if word == "of":
            if before in words.DEPICTIONS:
                return "likened"
        elif word == "and":
            if tokens[back + 1] in words.DETERMINERS or tokens[back + 1] in words.NEGATORS:
                return ""
        elif word in words.BREAKERS or word == "like" or word == "as":
            return ""
        elif word in words.AUXILIARIES or _is_participle(word):
            verb = word
    return ""
