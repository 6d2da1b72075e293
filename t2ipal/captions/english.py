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


def with_article(phrase: str) -> str:
    """A phrase of one thing behind "a" or "an", by the sound that it begins with."""
    first = phrase.split()[0]
    vowel = first[0] in "aeiou" and not first.startswith(words.SPOKEN_LIKE_YOU)
    return f"{'an' if vowel or first in words.SPOKEN_WITH_A_VOWEL else 'a'} {phrase}"


def is_verb(tokens: list[str], at: int) -> bool:
    """Whether the noun-or-verb at `at` is used as a verb ("to train", "an athlete trains")."""
    word, before, after = tokens[at], word_at(tokens, at - 1), word_at(tokens, at + 1)
    opener = _opener(tokens, at)
    inside = opener < at - 1 and before not in words.ADJECTIVES
    if before in words.AIRCRAFT and word in ("taxi", "taxis"):
        return True
    if word in words.NOUN_OR_VERB:
        if before == "to":
            return at < 2 or tokens[at - 2] not in words.TO_AS_PREPOSITION
        if before in words.SEVERAL_ACTORS:  # "men train", but "a children store"
            return word_at(tokens, opener) not in words.ONE_THING
        return before in words.MODALS or (before in words.SUBJECTS and after in words.VERB_OBJECTS)
    if before in words.RELATIVE:  # "water that sinks"
        return True
    if before in words.ACTORS:  # "the woman trains dogs", but "two woman trains"
        return word_at(tokens, opener) not in words.SEVERAL
    if not inside or _ends_in_s(before):
        return False  # "a man sees buses"
    return (
        after in words.OBJECTS  # "the sign bears the name"
        or (before in words.SUBJECTS and after in words.VERB_OBJECTS)
        or (_is_one_thing(tokens, at) and after not in ("and", "or", ","))
    )


def is_predicate(tokens: list[str], at: int) -> bool:
    """Whether the word in -s at `at` is a verb ("a bus stops") and no plural ("two bus stops").

    A phrase that "a" opens ends in no plural. One that "the" or nothing opens may, unless a
    clause begins with it and goes on.
    """
    one_thing = _is_one_thing(tokens, at)
    if one_thing or tokens[at] in words.SELDOM_VERBS:
        return one_thing
    opener = _opener(tokens, at)
    bare = word_at(tokens, opener) not in words.OWNERS
    before = word_at(tokens, opener if bare else opener - 1)
    if before in words.SUBORDINATORS:  # "while the bus stops"
        return True
    after = word_at(tokens, at + 1)
    if after in words.BEHIND_A_PLURAL or (bare and after in ("", ".")):
        return False
    goes_on = after in words.CLOSED or after.endswith("ly") or tokens[at] in words.TAKE_AN_OBJECT
    return before in words.SENTENCE_ENDS and (goes_on or not after)


def word_at(tokens: list[str], at: int) -> str:
    """The token at `at`, empty outside the sentence."""
    return tokens[at] if 0 <= at < len(tokens) else ""


def _opener(tokens: list[str], end: int) -> int:
    """Where the word stands that opens the phrase before `end`, "a" of "a red bus"; -1: none."""
    for back in range(end - 1, -1, -1):
        word = tokens[back]
        if word in words.OPENERS:
            return back
        if _is_participle(word) and word_at(tokens, back - 1) not in words.DETERMINERS:
            return back  # but "a sailing boat"
        if back < end - 1 and _ends_in_s(word):
            return back  # a verb or a plural: "a man sees bus stops"
    return -1


def _ends_in_s(word: str) -> bool:
    """Whether a word looks like a plural or a verb; "bus" and "glass" do not."""
    return word.endswith("s") and not word.endswith(("ss", "us"))


def _is_one_thing(tokens: list[str], end: int) -> bool:
    """Whether "a" or the like opens the phrase before `end`; not so in "a couple dogs"."""
    opener = _opener(tokens, end)
    return (
        opener < end - 1
        and word_at(tokens, opener) in words.ONE_THING
        and tokens[end - 1] not in words.ADJECTIVES
        and words.COUNTS.isdisjoint(tokens[opener + 1 : end])
    )


def heads_its_phrase(tokens: list[str], end: int) -> bool:
    """Whether the noun that ends before `end` is not just describing a noun behind it."""
    if end >= len(tokens):
        return True
    after, beyond = tokens[end], word_at(tokens, end + 1)
    if after in words.CLOSED or after in words.FINITE_VERBS or _is_participle(after):
        return True
    if after.endswith("ed"):  # "a baby wrapped in a blanket"
        return beyond in words.PREPOSITIONS
    return _ends_in_s(after) and (
        beyond in words.OBJECTS  # "a couple parks their car"
        or (tokens[end - 1] in words.SINGLE_PERSONS and _is_one_thing(tokens, end))
    )


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
    after, beyond = word_at(tokens, end), word_at(tokens, end + 1)
    if after in words.NOT_THE_THING and not _goes_on(tokens, end):
        return True
    if after in words.SILHOUETTES and not words.SURFACES.isdisjoint(tokens):
        return True
    if after == "crossing" and beyond in ("sign", "signs"):
        return True
    if after == "like" and beyond not in words.CLOSED and beyond:  # "a dog like animal"
        return True
    if tokens[at] in words.TOYS:
        return False
    before, two_before = word_at(tokens, at - 1), word_at(tokens, at - 2)
    if "for" in (before, two_before if before in words.PLAIN_ADJECTIVES | words.NUMBERS else ""):
        return True  # "a table set for two people", "books for young children"
    if before in words.PLAIN_ADJECTIVES and two_before in words.UNREAL:
        before, two_before = two_before, word_at(tokens, at - 3)
    if before == "model" and (two_before in words.AGES or two_before[:1].isdigit()):
        return False  # "a late model car", "a 1950s model car"
    return before in words.UNREAL


def _goes_on(tokens: list[str], at: int) -> bool:
    """Whether the word behind a noun is no noun: "a woman shops", "a cake shaped like a dog"."""
    word, before, after = tokens[at], tokens[at - 1], word_at(tokens, at + 1)
    if word == "shaped":
        return after in ("like", "as", "in", "into", "to")
    if word in ("drawing", "painting"):
        return after in words.DETERMINERS or (
            before in words.PEOPLE and after not in words.BEHIND_A_DRAWING
        )
    return word in words.VERB_FORMS and is_verb(tokens, at)


def scope(tokens: list[str], at: int) -> str:
    """What a noun stands under: "negated" ("no dog"), "likened" ("statue of a dog") or ""."""
    verb = ""
    for back in range(at - 1, max(-1, at - 9), -1):
        word = tokens[back]
        if word in words.NEGATORS:
            beyond = tokens[back + 1]
            if beyond in words.NEVER_NEGATE or (word == "no" and (verb or _is_participle(beyond))):
                return ""
            # "not wearing a tie" denies the tie, "not watching the dog" does not deny the dog.
            return "" if verb and verb not in words.HOLDING | words.AUXILIARIES else "negated"
        if word in words.RESEMBLE or (word in ("like", "as", "into") and _likens(tokens, back)):
            return "" if verb else "likened"
        if word == "of":
            if back and _depicts(tokens, back - 1):
                return "likened"
        elif word == "and":
            if tokens[back + 1] in words.DETERMINERS or tokens[back + 1] in words.NEGATORS:
                return ""
        elif word in words.BREAKERS or word == "like" or word == "as":
            return ""
        elif word in words.AUXILIARIES or _is_participle(word):
            verb = word
    return ""


def _likens(tokens: list[str], at: int) -> bool:
    """Whether "like", "as" or "into" at `at` says what a thing was made to look like."""
    at_verb = at - 2 if word_at(tokens, at - 1) in ("up", "out") else at - 1
    verb, before = word_at(tokens, at_verb), word_at(tokens, at_verb - 1)
    if tokens[at] == "into":
        return verb in words.MADE_INTO
    if before == "what":  # "what looks like a bird" is a bird
        return False
    if before in words.GUESSING and word_at(tokens, at_verb - 2) in words.SENTENCE_ENDS:
        return False  # "it looks like a man is fishing"
    return verb in words.LIKENESS


def _depicts(tokens: list[str], at: int) -> bool:
    """Whether the noun at `at`, before "of", is a picture or a figure of what follows."""
    word, before = tokens[at], word_at(tokens, at - 1)
    if word in words.SILHOUETTES:  # of somebody who stands there, if on no sign
        return not words.SURFACES.isdisjoint(tokens)
    if word in ("shadow", "shadows"):  # but "in the shadow of a boat"
        return "in" not in tokens[max(0, at - 2) : at]
    if word in ("model", "models"):
        return before not in words.AGES
    if word in words.PICTURES:  # most captions are a picture of a thing; it may also hold one
        while before in words.DETERMINERS or before in words.ADJECTIVES:
            at -= 1
            before = word_at(tokens, at - 1)
        return before == "with" or before in words.HOLDING
    return word in words.DEPICTIONS
