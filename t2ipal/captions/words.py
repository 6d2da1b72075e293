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
    "aircraft": "aircrafts",
    "hoof": "hoofs",
    "mouse": "mouses",
}
NOT_MEN = ("human", "ottoman", "german", "roman", "caiman", "talisman")
PLURAL_IN_OES = ("potato", "tomato", "hero", "echo", "mosquito", "buffalo", "volcano", "tornado")
SPOKEN_LIKE_YOU = (
    *(
        "unic",
        "unif",
        "unio",
        "uniq",
        "unit",
        "univ",
        "use",
        "usu",
        "ute",
        "util",
        "ufo",
        "ukulele",
    ),
    *("eu", "ewe", "one", "once"),
)
"""How words begin that have "a" before a vowel."""


def word_set(text: str) -> frozenset[str]:
    """The words of a text, without an order."""
    return frozenset(text.split())


PLURAL_ONLY = word_set(
    "news glasses shorts goods jeans pants trousers clothes sports arms means lens series species"
    " stairs politics athletics gymnastics physics headquarters gas bus canvas atlas iris tennis"
    " christmas chess swiss specs briefs customs outskirts thanks"
)
"""What ends like a plural, and is no plural or has another sense in the singular."""
SPOKEN_WITH_A_VOWEL = word_set("hour hourglass honest honor honour heir suv mp3 x xray hdtv lcd")
DETERMINERS = word_set(
    "a an the this these those some any each every another one two three four five six seven"
    " eight nine ten several many few both his her its their my your our all"
)
NUMBERS = word_set("2 3 4 5 6 7 8 9 10 12 two three four five six seven eight nine ten several")
PREPOSITIONS = word_set(
    "on in at by near next beside besides behind under over above with from to into onto"
    " through across along against around between among inside outside atop upon down up off"
    " for during after before toward towards underneath below within beneath past throughout"
    " about alongside amongst amidst of without out away like"
)
CONJUNCTIONS = word_set(
    "and or but nor while as when where which who that whose than then because if so"
)
BE = word_set("is are was were be been being")
AUXILIARIES = BE | word_set("has have had can could will would should may might must do does did")
ADVERBS = word_set(
    "very all also just together outdoors indoors outside inside alone not only there here"
)
PUNCTUATION = word_set('. , ; : ! ? ( ) "')
CLOSED = (
    DETERMINERS
    | PREPOSITIONS
    | CONJUNCTIONS
    | AUXILIARIES
    | ADVERBS
    | PUNCTUATION
    | word_set("'s him")
)

# What ends a negation or a likeness when walking back from a noun towards its trigger.
BREAKERS = (
    (PREPOSITIONS - {"of", "without", "like"})
    | BE
    | PUNCTUATION
    | (CONJUNCTIONS - {"and", "or", "nor", "as"})
)
NEGATORS = word_set("no without 't not never nor neither lacks lacking sans zero")
HOLDING = word_set("wearing holding carrying having containing showing using including")
NEVER_NEGATE = word_set("longer one matter only doubt just many much all")  # "no longer"
MADE_INTO = word_set(
    "shaped made formed molded moulded sculpted fashioned twisted trimmed transformed"
)
LIKENESS = MADE_INTO | word_set(
    "look looks looking looked dressed designed decorated painted something appears disguised"
    " styled carved cut folded arranged built baked crafted"
)
GUESSING = word_set("it this these those they")
RESEMBLE = word_set("resembling resembles resemble depicting imitating imitates mimicking mimics")
DEPICTIONS = word_set(
    "statue statues sculpture sculptures figurine figurines drawing drawings painting"
    " paintings mural murals sketch sketches cartoon cartoons logo logos replica replicas carving"
    " carvings shape shapes form forms outline likeness print prints illustration graffiti topiary"
    " poster posters sticker stickers decal decals tattoo puppet puppets miniature miniatures toy"
    " toys doll dolls cutout cutouts"
)
PICTURES = word_set("picture pictures photo photos photograph photographs image images")
SILHOUETTES = word_set("silhouette silhouettes")
SURFACES = word_set(  # a silhouette beside one of these words is drawn or cut
    "sign signs sticker stickers decal decals logo painted printed drawn stenciled stencil cut"
    " cutout cutouts mural poster shirt mug card flag tattoo wooden metal paper cardboard plastic"
    " wallpaper symbol icon"
)
# In front of a noun: it is no real one. Behind it: the noun only describes that thing.
UNREAL = word_set(
    "toy stuffed plush inflatable fake lego origami cartoon gingerbread balloon marzipan"
    " crocheted knitted animated model"
)
AGES = word_set("late later latest old older new newer early vintage classic recent antique")
TOYS = word_set("teddy toy doll lego stuffed")  # what is made of plush or a toy anyway
NOT_THE_THING = word_set(
    "statue statues sculpture sculptures figurine figurines costume costumes balloon balloons"
    " logo logos shaped print prints plush mask masks drawing drawings cartoon cartoons themed"
    " decal sticker stickers tattoo ornament ornaments doll dolls toy toys station stations"
    " shop store shops stores depot patterned magnet magnets model models sign signs painting"
    " paintings picture pictures poster posters mural murals portrait portraits puppet puppets"
    " topiary suit suits"
)
ROOMS = word_set(
    "room restroom restrooms bathroom bathrooms department store clothing section"
)  # "men's room"
PLAIN_ADJECTIVES = word_set(
    "young other"
    " big small large little tiny old cute brown black white red green blue yellow pink purple"
    " grey gray orange colorful wooden"
)
COLORS = word_set(
    "red green blue yellow pink purple grey gray black white brown silver gold tan beige teal"
    " maroon cream turquoise"
)
ADJECTIVES = PLAIN_ADJECTIVES | COLORS
COLOR_NOUNS = word_set("orange peach plum olive rose violet salmon coral lime")
BEFORE_A_COLOR = word_set(
    "in is are was bright dark light wearing neon painted dressed color colored deep"
)

# Singular nouns that mostly describe the noun behind them: they count only as the head of their
# phrase.
OFTEN_MODIFIERS = word_set(
    "baby adult male female teen infant passenger commuter pedestrian family couple"
    " individual human orange remote mother father friend team member student tourist customer"
    " visitor guest rose plant water cell conductor pilot crowd lifeguard"
)
SINGLE_PERSONS = word_set(
    "baby adult male female teen infant passenger commuter pedestrian family individual"
    " mother father friend student tourist customer visitor guest human individual member conductor"
    " pilot crowd lifeguard model"
)
NOT_PARTICIPLES = word_set(
    "building ceiling railing evening morning painting clothing lighting awning wing ring"
    " string swing king icing frosting dining living parking siding setting covering wedding"
    " earring dressing crossing topping filling training"
)
FINITE_VERBS = word_set(
    "sits sit stands stand walks walk rides ride plays play holds hold looks look poses pose"
    " eats eat sleeps sleep lies lie lays lay smiles smile watches watch waits wait runs run"
    " stares enjoys enjoy gets get takes take tries try jumps jump rests rest wears wear"
    " shares share cuts cut uses prepares prepare crosses cross feeds kisses kiss hugs talks"
    " pulls carries reads stays floats flies works makes gives follows drinks goes seated"
    " dressed posed gathered surrounded displayed placed"
)

# Nouns whose own verb does not put the thing in the picture ("to train", "ties a knot"), and the
# verbs among `NOT_THE_THING`. Verbs done with the thing itself (to ski, to bike, to boat) are left
# out on purpose: there the noun is in the picture.
NOUN_OR_VERB = word_set(
    "train bus book bottle bowl chair clock dog duck fork horse knife man park plant table"
    " tie sink bear sandwich remote father mother ram bull hound hawk crow robin cab cup"
    " cake fish flag house rock fire sign map flower water toy bridge spoon cow fox ape sand"
    " tower monitor coach ship jet taxi ferry shop store model mask print station"
)
VERB_FORMS = (
    NOUN_OR_VERB
    | {word + "s" for word in NOUN_OR_VERB}
    | word_set("buses benches ferries fishes foxes torches")
)
# Last words of compounds ("bus stop") that are verbs too. "Track" is left out: people write "a
# train tracks" for the rails.
SELDOM_VERBS = word_set("houses beds lines lifts tails trails shelters tags treats wrecks fishes")
TAKE_AN_OBJECT = word_set("hugs shows")
LAST_VERBS = (
    word_set("stops docks parks rides stands sets nests launches washes hides streams splits toys")
    | TAKE_AN_OBJECT
    | SELDOM_VERBS
)
TO_AS_PREPOSITION = word_set(
    "next close adjacent attached tied hitched connected near opposite similar belonging"
    " hooked chained leashed strapped proximity back going goes way up on leading leads leans"
    " leaning clinging go perpendicular parallel secured fastened closest"
)
AIRCRAFT = word_set(
    "plane planes airplane airplanes aeroplane aeroplanes jet jets airliner airliners jetliner"
    " jetliners aircraft biplane biplanes jumbo"
)
# Who acts, and hardly ever describes a noun behind.
ACTING_PERSONS = word_set(
    "man woman boy girl person guy lady someone somebody he she player athlete coach waiter"
    " waitress chef farmer nurse worker trainer soldier officer sailor"
)
ACTORS = ACTING_PERSONS | word_set("ship tree branch sun")
SEVERAL_ACTORS = word_set("men women people children they we workers soldiers athletes sailors")
PEOPLE = (
    SINGLE_PERSONS
    | ACTING_PERSONS
    | SEVERAL_ACTORS
    | word_set("child kid kids boys girls players guys ladies couple artist")
)
SUBJECTS = (
    ACTORS
    | SEVERAL_ACTORS
    | word_set("child kid skier dog cat bird horse who boys girls kids players guys you i")
)
MODALS = word_set(
    "can could will would should must may might 't they we i you he she who let lets cannot"
)
OBJECTS = word_set("a an the his her its their him them fruit")
VERB_OBJECTS = OBJECTS | word_set("it this up down")
RELATIVE = word_set("who that which")

# What opens a phrase of nouns.
ONE_THING = word_set("a an one another each every this that")
OWNERS = word_set("the his her its their my your our")
SEVERAL = (DETERMINERS | NUMBERS) - ONE_THING - OWNERS
OPENERS = (CLOSED | NUMBERS) - {"very"}
COUNTS = word_set("couple dozen pair hundred lot bunch")  # "a couple dogs" are two
SENTENCE_ENDS = word_set(". ! ? ; :") | {""}
SUBORDINATORS = word_set("while as when where because once until")
BEHIND_A_DRAWING = word_set("of by . , and hangs hanging is are") | {""}
BEHIND_A_PLURAL = word_set("are were have and or , with of along line")  # a subject, not a verb

# Who does something that cannot be done without the thing.
THING_OF_A_DOER = {
    "cyclist": "bicycle",
    "bicyclist": "bicycle",
    "motorcyclist": "motorcycle",
    "skier": "ski",
    "snowboarder": "snowboard",
    "snow boarder": "snowboard",
    "skateboarder": "skateboard",
    "skate boarder": "skateboard",
    "surfer": "surfboard",
    "kayaker": "kayak",
    "equestrian": "horse",
    "jockey": "horse",
    "dog walker": "dog",
    "batter": "baseball bat",
    "hitter": "baseball bat",
    "tennis player": "tennis racket",
}
