"""Nouns with a second sense: whether the caption means the thing of the vocabulary.

Owns the few words that name a class of many vocabularies, but often mean something else, and the
words around that tell which it is.
"""

from collections.abc import Callable

from t2ipal.captions import words
from t2ipal.captions.english import heads_its_phrase, word_at
from t2ipal.captions.words import word_set

BASEBALL = word_set(
    "baseball baseballs softball mound pitch pitches pitching pitched throw throws throwing threw"
    " thrown pitcher batter catcher umpire inning league ball balls game uniform player players"
    " team glove mitt base bases bat field stadium winds winding strike home swing swings swinging"
)
KITCHEN = word_set(
    "table counter kitchen vase flower flowers bowl cup cups glass glasses mug mugs tray pan spoon"
    " whisk dough cake pancake pancakes waffle muffin oven stove shelf plate saucer water milk tea"
    " juice lemonade beer wine coffee tulips roses irises lilies daisies fruit basin jug"
)
ACTIONS = word_set(
    "throws throwing winds winding pitches pitching gets getting prepares preparing releases"
    " releasing stretches stretching runs running follows spins warming warms"
)
BEFORE_A_MODEL = word_set(
    "woman man girl boy lady male female teen teenage child fashion runway catwalk swimsuit bikini"
    " lingerie underwear super glamour young beautiful pretty handsome attractive blonde asian"
)
POSING = word_set(
    "poses pose posing posed wears wear wearing walks walk walking struts strutting strikes"
    " smiles smiling dressed"
)
CLOTHES = word_set(
    "dress dresses suit suits gown gowns bikini bikinis swimsuit swimsuits outfit outfits lingerie"
    " skirt jeans heels coat jacket jackets shirt hat clothes"
)
TRAINS = word_set("train trains locomotive locomotives engine engines subway")
RAILWAY = word_set("track tracks station stations platform yard bridge crossing rails depot stop")
PULLING = word_set("pulling pulls pull hauling hauls towing")
HAVING = word_set("with has have its")
ON_THE_TRACKS = word_set("is on the a track tracks and filled")
CLOCKS = word_set("clock clocks watch numeral numerals")


def is_player(tokens: list[str], at: int) -> bool:
    """Whether a "pitcher" or "batter" plays baseball; else it is a jug, or dough."""
    after = word_at(tokens, at + 1)
    if after in ("of", "filled", "full"):
        return False
    if not BASEBALL.isdisjoint(tokens[:at] + tokens[at + 1 :]):
        return True
    if not KITCHEN.isdisjoint(tokens):
        return False
    return tokens[at].startswith("batter") or after in ACTIONS


def is_posing(tokens: list[str], at: int) -> bool:
    """Whether a "model" is a person, who poses or wears something, and not a small car."""
    after = word_at(tokens, at + 1)
    if after == "of":
        return False
    if after == "in":
        return not CLOTHES.isdisjoint(tokens[at:])
    return after in POSING or (
        word_at(tokens, at - 1) in BEFORE_A_MODEL and heads_its_phrase(tokens, at + 1)
    )


def is_of_people(tokens: list[str], at: int) -> bool:
    """Whether a "group" is one of people: it is said of nothing else, and not "in a group"."""
    inside = not {"in", "into"}.isdisjoint(tokens[max(0, at - 4) : at])
    if inside or word_at(tokens, at + 1) == "together":
        return False
    return heads_its_phrase(tokens, at + 1)


def is_of_a_body(tokens: list[str], at: int) -> bool:
    """Whether a "hand" is a person's: not the clock's, and not that of a "hand towel"."""
    return heads_its_phrase(tokens, at + 1) and CLOCKS.isdisjoint(tokens)


def is_on_a_road(tokens: list[str], at: int) -> bool:
    """Whether a "car" is none of a train ("a train with red cars", "the last car of a train")."""
    if TRAINS.isdisjoint(tokens):
        return True
    if word_at(tokens, at + 1) == "of":
        return not _has_train(tokens[at + 2 : at + 6])
    for back in range(at - 1, max(-1, at - 7), -1):
        word = tokens[back]
        if word in PULLING or (word == "by" and word_at(tokens, back - 1) == "followed"):
            return not _has_train(tokens[max(0, back - 5) : back])
        if word in HAVING:  # but "a train standing on the tracks with two cars"
            while word_at(tokens, back - 1) in ON_THE_TRACKS:
                back -= 1
            return tokens[at] == "car" or not _has_train(tokens[back - 1 : back + 1])
        if word in words.BREAKERS and word != ",":
            return True
        if word == "and" and tokens[back + 1] not in words.COLORS:
            return True
    return True


def _has_train(tokens: list[str]) -> bool:
    return any(
        word in TRAINS and after not in RAILWAY for word, after in zip(tokens, [*tokens[1:], ""])
    )


SENSES: dict[str, Callable[[list[str], int], bool]] = {
    **dict.fromkeys(("pitcher", "pitchers", "batter", "batters"), is_player),
    **dict.fromkeys(("model", "models"), is_posing),
    **dict.fromkeys(("group", "groups"), is_of_people),
    **dict.fromkeys(("hand", "hands"), is_of_a_body),
    **dict.fromkeys(("car", "cars"), is_on_a_road),
}
"""Word -> whether it means the thing, where it stands."""
