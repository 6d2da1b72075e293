"""Word lists of the noun filter: irregular plurals, closed word classes, doubtful nouns.

Owns data alone; `english.py` holds the rules that use it. Every set is asked for membership only,
so no order of a set can reach a result.
"""

IRREGULAR_PLURALS = {
    "man": "men",
    "child": "children",
    "person": "people",
    "mouse": "mice",
    "goose": "geese",
    "foot": "feet",
    "tooth": "teeth",
    "ox": "oxen",
    "knife": "knives",
    "wife": "wives",
    "leaf": "leaves",
    "loaf": "loaves",
    "calf": "calves",
    "shelf": "shelves",
    "half": "halves",
    "wolf": "wolves",
    "scarf": "scarves",
    "hoof": "hooves",
    "sheep": "sheep",
    "deer": "deer",
    "elk": "elk",
    "moose": "moose",
    "fish": "fish",
    "aircraft": "aircraft",
    "cattle": "cattle",
    "people": "people",
    "luggage": "luggage",
    "baggage": "baggage",
    "wildlife": "wildlife",
    "police": "police",
    "waterfowl": "waterfowl",
}
SECOND_PLURALS = {
    "bus": "busses",
    "fish": "fishes",
    "elk": "elks",
    "person": "persons",
    "scarf": "scarfs",
    "hoof": "hoofs",
    "mouse": "mouses",
}
NOT_MEN = ("human", "ottoman", "german", "roman", "caiman", "talisman")
PLURAL_IN_OES = ("potato", "tomato", "hero", "echo", "mosquito", "buffalo", "volcano", "tornado")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PLURAL_ONLY = _words(
    "news glasses shorts goods jeans pants trousers clothes sports arms means lens series species"
    " stairs politics athletics gymnastics physics headquarters gas bus canvas atlas iris tennis"
    " christmas chess swiss specs briefs customs outskirts thanks"
)
"""What ends like a plural, and is no plural or has another sense in the singular."""
DETERMINERS = _words(
    "a an the this these those some any each every another one two three four five six seven"
    " eight nine ten several many few both his her its their my your our all"
)
NUMBERS = _words("2 3 4 5 6 7 8 9 10 12 two three four five six seven eight nine ten several")
PREPOSITIONS = _words(
    "on in at by near next beside besides behind under over above with from to into onto"
    " through across along against around between among inside outside atop upon down up off"
    " for during after before toward towards underneath below within beneath past throughout"
    " about alongside amongst amidst of without out away like"
)
CONJUNCTIONS = _words(
    "and or but nor while as when where which who that whose than then because if so"
)
BE = _words("is are was were be been being")
AUXILIARIES = BE | _words("has have had can could will would should may might must do does did")
ADVERBS = _words(
    "very all also just together outdoors indoors outside inside alone not only there here"
)
PUNCTUATION = _words('. , ; : ! ? ( ) "')
CLOSED = (
    DETERMINERS
    | PREPOSITIONS
    | CONJUNCTIONS
    | AUXILIARIES
    | ADVERBS
    | PUNCTUATION
    | _words("'s him")
)

# What ends a negation or a likeness when walking back from a noun towards its trigger.
BREAKERS = (
    (PREPOSITIONS - {"of", "without", "like"})
    | BE
    | PUNCTUATION
    | (CONJUNCTIONS - {"and", "or", "nor", "as"})
)
NEGATORS = _words("no without 't not never nor neither lacks lacking sans zero")
HOLDING = _words("wearing holding carrying having containing showing using including")
NEVER_NEGATE = _words("longer one matter only doubt just many much all")  # "no longer"
LIKENESS = _words(
    "look looks looking looked shaped dressed designed decorated made painted something"
    " formed appears disguised styled carved"
)
RESEMBLE = _words("resembling resembles resemble depicting imitating imitates mimicking mimics")
DEPICTIONS = _words(
    "statue statues sculpture sculptures figurine figurines drawing drawings painting"
    " paintings mural sketch cartoon cartoons logo replica carving carvings silhouette"
    " silhouettes shape form print prints illustration graffiti"
)
# In front of a noun: it is no real one. Behind it: the noun only describes that thing.
UNREAL = _words(
    "toy stuffed plush inflatable fake lego origami cartoon gingerbread balloon marzipan"
    " crocheted knitted animated"
)
TOYS = _words("teddy toy doll lego stuffed")  # what is made of plush or a toy anyway
NOT_THE_THING = _words(
    "statue statues sculpture sculptures figurine figurines costume costumes balloon balloons"
    " logo logos shaped print prints plush mask masks drawing drawings cartoon cartoons themed"
    " decal sticker stickers tattoo ornament ornaments doll dolls toy toys station stations"
    " shop store shops stores depot silhouette silhouettes patterned magnet magnets"
    " model models"
)
ROOMS = _words(
    "room restroom restrooms bathroom bathrooms department store clothing section"
)  # "men's room"
PLAIN_ADJECTIVES = _words(
    "young other"
    " big small large little tiny old cute brown black white red green blue yellow pink purple"
    " grey gray orange colorful wooden"
)
COLORS = _words(
    "red green blue yellow pink purple grey gray black white brown silver gold tan beige teal"
    " maroon cream turquoise"
)
COLOR_NOUNS = _words("orange peach plum olive rose violet salmon coral lime")
BEFORE_A_COLOR = _words(
    "in is are was bright dark light wearing neon painted dressed color colored deep"
)

# Singular nouns that mostly describe the noun behind them: they count only as the head of their
# phrase.
OFTEN_MODIFIERS = _words(
    "baby adult male female teen infant passenger commuter pedestrian family couple"
    " individual human orange remote mother father friend team member student tourist customer"
    " visitor guest rose plant water cell conductor pilot crowd"
)
SINGLE_PERSONS = _words(
    "baby adult male female teen infant passenger commuter pedestrian family individual"
    " mother father friend student tourist customer visitor guest"
)
NOT_PARTICIPLES = _words(
    "building ceiling railing evening morning painting clothing lighting awning wing ring"
    " string swing king icing frosting dining living parking siding setting covering wedding"
    " earring dressing crossing topping filling training"
)
FINITE_VERBS = _words(
    "sits sit stands stand walks walk rides ride plays play holds hold looks look poses pose"
    " eats eat sleeps sleep lies lie lays lay smiles smile watches watch waits wait runs run"
    " stares enjoys enjoy gets get takes take tries try jumps jump rests rest wears wear"
    " shares share cuts cut uses prepares prepare crosses cross feeds kisses kiss hugs talks"
    " pulls carries reads stays floats flies works makes gives follows drinks goes seated"
    " dressed posed gathered surrounded displayed placed"
)

# Nouns whose own verb does not put the thing in the picture ("to train", "ties a knot"). Verbs
# done with the thing itself (to ski, to bike, to boat) are left out on purpose: there the noun is
# in the picture.
NOUN_OR_VERB = _words(
    "train bus book bottle bowl chair clock dog duck fork horse knife man park plant table"
    " tie sink bear sandwich remote father mother ram bull hound hawk crow robin cab cup"
    " cake fish flag house rock fire sign map flower water toy bridge spoon cow fox ape sand"
    " tower monitor coach ship jet"
)
VERB_FORMS = NOUN_OR_VERB | {word + "s" for word in NOUN_OR_VERB} | _words("buses benches")
TO_AS_PREPOSITION = _words(
    "next close adjacent attached tied hitched connected near opposite similar belonging"
    " hooked chained leashed strapped proximity back going goes way up on leading leads leans"
    " leaning clinging go perpendicular parallel secured fastened closest"
)
SUBJECTS = _words(
    "man woman boy girl person guy lady child kid he she someone player skier dog cat bird"
    " horse who people men women boys girls children kids players they guys we you i"
)
MODALS = _words(
    "can could will would should must may might 't they we i you he she who let lets cannot"
)
VERB_OBJECTS = _words("a an the his her its their him them it this up down")
RELATIVE = _words("who that which")
