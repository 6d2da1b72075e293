"""A writer without a model: sentences for the classes of any vocabulary, from a small grammar.

Every part of a sentence goes through the noun filter of the vocabulary first, so that no place or
adjective names a class by chance. Longer, calmer sentences than people write for MS-COCO.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from t2ipal.captions import words
from t2ipal.captions.english import inflections, plural, singulars, with_article
from t2ipal.captions.nouns import NounFilter
from t2ipal.captions.tasks import Task
from t2ipal.captions.vocabulary import Vocabulary, nouns_of_name
from t2ipal.captions.words import word_set

MAX_NOUNS = 6
"""That a class is called by: its synonyms begin with the usual ones."""
MASS = word_set(
    "water snow sand grass food meat bread sushi soup rice pasta fire smoke frost ice traffic"
    " furniture luggage baggage cattle people police wildlife military foliage coral hair rain"
    " sunshine sunlight fruit broccoli surf nighttime waterfowl graffiti clothing salad"
)
"""What has no article and no plural."""
ONLY_ONE = word_set("sky sun moon sea ocean beach night skyline horizon military navy army")
PAIRS = word_set("scissors glasses sunglasses jeans trousers pants shorts tights pliers")
ADJECTIVES = ("small", "large", "solitary", "familiar", "ordinary", "nearby", "plain", "fine")
NUMBERS = ("two", "three", "a few", "several")
THINGS = ("thing", "shape", "surface", "object")
"""What a class has that is said of things, such as a color."""
VERBS = (
    ("rests", "rest"),
    ("appears", "appear"),
    ("waits", "wait"),
    ("remains", "remain"),
    ("can be seen", "can be seen"),
    ("has been placed", "have been placed"),
)
BESIDE = ("beside", "right next to", "close to", "together with", "in the company of", "near")
TIMES = (
    "early in the morning",
    "late in the afternoon",
    "on a calm day",
    "in soft daylight",
    "in the evening",
    "at this moment",
    "as so often",
)
MOODS = (
    "calm and uncluttered",
    "seen from the side",
    "captured in soft light",
    "clearly in focus",
    "with plenty of space around",
    "in warm tones",
    "seen from a short distance",
)
ANYWHERE = ("against a plain background", "in the foreground", "in the middle of the scene")
PLACES = {
    "air": ("high up in the air", "in a cloudy sky", "above the clouds"),
    "field": ("in a grassy field", "in a park", "on a farm", "in the countryside", "on a lawn"),
    "home": ("in a living room", "in a kitchen", "at home", "in an office", "on the floor"),
    "rails": ("at a station", "on a railway"),
    "road": ("on a city street", "on the road", "in a parking lot", "in the city"),
    "water": ("on the water", "on a lake", "on a river", "in a harbor"),
}
KINDS = {
    **dict.fromkeys(("airplane", "helicopter"), ("air",)),
    **dict.fromkeys(("bird", "kite"), ("air", "field", "water")),
    **dict.fromkeys(("boat", "surfboard"), ("water",)),
    **dict.fromkeys(("bicycle", "motorcycle", "person"), ("road", "field")),
    **dict.fromkeys(("bus", "car", "truck", "traffic light", "stop sign"), ("road",)),
    **dict.fromkeys(("train",), ("rails",)),
    **dict.fromkeys(("dog", "cat"), ("home", "field")),
    **dict.fromkeys(("cow", "horse", "sheep", "elephant", "zebra", "giraffe"), ("field",)),
    **dict.fromkeys(
        ("bottle", "chair", "dining table", "potted plant", "couch", "tv", "bed", "laptop"),
        ("home",),
    ),
    **dict.fromkeys(("cup", "bowl", "book", "clock", "vase", "oven", "sink"), ("home",)),
}
"""Noun -> where one expects it; what is not here may be anywhere."""


@dataclass(frozen=True)
class _Noun:
    one: str
    many: str
    """"" where it is not counted."""


class GrammarWriter:
    """Writes a sentence for each task; the same one for the same task."""

    def __init__(self, vocabulary: Vocabulary):
        """Looks which words and phrases are free to use.

        Args:
            vocabulary: the classes.
        """
        self._filter = NounFilter(vocabulary)
        self._nouns = [self._nouns_of(index) for index in range(len(vocabulary.class_names))]
        self._kinds = [
            next((KINDS[n] for n in _names(vocabulary, index) if n in KINDS), ())
            for index in range(len(vocabulary.class_names))
        ]
        free = self._free
        self._adjectives = [] if vocabulary.adjectives else free(ADJECTIVES, "a {} something")
        self._times, self._moods = free(TIMES), free(MOODS)
        self._anywhere = free(ANYWHERE)
        self._places = {kind: free(phrases) for kind, phrases in PLACES.items()}

    def __call__(self, tasks: Sequence[Task]) -> list[str]:
        """A sentence for each task."""
        return [self._sentence(Random(task.seed), task.classes) for task in tasks]

    def _sentence(self, rng: Random, classes: Sequence[int]) -> str:
        phrases = [self._phrase(rng, index) for index in classes]
        kinds = [kind for kind in self._kinds[classes[0]] if self._places[kind]]
        place = rng.choice(self._places[rng.choice(kinds)] if kinds else self._anywhere or [""])
        time = rng.choice(self._times or [""])
        mood = rng.choice(self._moods or [""])
        (first, plural_first), rest = phrases[0], _joined([phrase for phrase, _ in phrases[1:]])
        everything = _joined([phrase for phrase, _ in phrases])
        verb, beside = rng.choice(VERBS)[plural_first], rng.choice(BESIDE)
        appear = VERBS[1][plural_first or bool(rest)]
        styles = [
            f"{time}, {everything} {appear} {place}.",
            f"the view shows {everything} {place}, {mood}.",
            f"{everything} {place}, {mood}.",
            f"what one notices here: {everything} {place}.",
        ]
        if rest:
            styles += [
                f"{place}, {first} {verb} {beside} {rest}.",
                f"{time}, {first} {verb} {place} {beside} {rest}.",
                f"{first} {verb} {beside} {rest}, {mood}.",
                f"{first} {verb} {place}; {rest} can be made out too.",
            ]
        else:
            styles += [f"{place}, {first} {verb}, {mood}.", f"{time}, {first} {verb} {place}."]
        text = " ".join(rng.choice(styles).split()).lstrip(" ,").replace(" ,", ",")
        return text[:1].upper() + text[1:]

    def _phrase(self, rng: Random, index: int) -> tuple[str, bool]:
        """A class as a sentence says it, and whether that is in the plural."""
        nouns = self._nouns[index]
        noun = rng.choices(nouns, [1 / rank for rank in range(1, len(nouns) + 1)])[0]
        adjective = rng.choice(self._adjectives) if self._adjectives and rng.random() < 0.4 else ""
        several, number = rng.random() < 0.25, rng.choice(NUMBERS)
        last = noun.one.split()[-1]
        if last in ONLY_ONE:
            return f"the {noun.one}", False
        if last in PAIRS:
            return f"a pair of {adjective} {noun.one}", False
        if not noun.many:
            return f"{rng.choice(('some', ''))} {noun.one}", last in ("people", "cattle", "police")
        if several:
            return f"{number} {noun.many}", True
        return with_article(f"{adjective} {noun.one}".strip()), False

    def _nouns_of(self, index: int) -> list[_Noun]:
        """What to call a class, best first: words by which the filter finds it and no other."""
        vocabulary, found = self._filter.vocabulary, list[_Noun]()
        own = set(self._filter.classes_of(index))
        for name in _names(vocabulary, index):
            if vocabulary.adjectives:
                forms = [_Noun(f"{name} {thing}", f"{name} {plural(thing)}") for thing in THINGS]
            else:
                forms = [_forms(tuple(name.split()))]
            found += [form for form in forms if set(self._labels(f"It shows {form.one}.")) == own]
            if len(found) >= MAX_NOUNS:
                break
        return found or [_forms(tuple(vocabulary.prompt_names[index].split()))]

    def _labels(self, text: str) -> tuple[int, ...]:
        return self._filter(text).labels

    def _free(self, phrases: Sequence[str], frame: str = "something {}") -> list[str]:
        """Those that name no class."""
        return [phrase for phrase in phrases if not self._labels(frame.format(phrase))]


def _names(vocabulary: Vocabulary, index: int) -> list[str]:
    """Plain words for a class: its name for prompts, then its synonyms."""
    name, prompt = vocabulary.class_names[index], vocabulary.prompt_names[index]
    written = [*([] if vocabulary.adjectives else [prompt]), *vocabulary.synonyms[index], name]
    found: dict[str, None] = {}
    for text in written:
        for tokens, _ in nouns_of_name(text, vocabulary.name):
            glued = text == name and "".join(tokens) == prompt.replace(" ", "") != prompt
            if all(map(str.isalpha, tokens)) and tokens[0] != "to" and not glued:
                found[" ".join(tokens)] = None
    return list(found) or [prompt]


def _forms(noun: tuple[str, ...]) -> _Noun:
    """One and several of a noun, whichever of them a vocabulary has."""
    last = noun[-1]
    if (
        last in MASS
        or last in PAIRS
        or (last.endswith("ing") and last not in words.NOT_PARTICIPLES)
    ):
        return _Noun(" ".join(noun), "")
    one = next((s for s in singulars(noun) if inflections(s)[-1] == noun), noun)
    forms = [" ".join(form) for form in inflections(one)]
    return _Noun(forms[0], forms[1] if len(forms) > 1 else forms[0])


def _joined(phrases: Sequence[str]) -> str:
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"
