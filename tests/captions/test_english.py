import pytest

VOC = "voc2007"
COCO = "coco2014"
NUS = "nuswide"


@pytest.mark.parametrize(
    ("vocabulary", "caption", "names"),
    [
        # a verb behind one thing, which no plural can follow
        (VOC, "A yellow city bus stops to let an old man get off.", "bus, person"),
        (VOC, "Every train stops here.", "train"),
        (VOC, "A taxi stops in front of a hotel.", "car"),
        (VOC, "A sailing boat docks in the marina.", "boat"),
        (VOC, "A red car parks beside a horse trailer.", "car"),
        (VOC, "A car washes up on the beach after a storm.", "car"),
        (VOC, "A train rides over a bridge.", "train"),
        (VOC, "A train sets off from the station.", "train"),
        (VOC, "A bird nests in the tree.", "bird"),
        (VOC, "A cow hides behind a tree.", "cow"),
        (VOC, "A jet streams across the blue sky.", "aeroplane"),
        (VOC, "A TV stands on a wooden cabinet.", "tvmonitor"),
        (VOC, "A dog tags along with two hikers.", "dog, person"),
        (VOC, "A bike trails behind a car.", "bicycle, car"),
        (VOC, "A large boat houses a restaurant.", "boat"),
        (VOC, "A cat toys with a mouse.", "cat"),
        (COCO, "A big brown bear hugs a tree trunk.", "bear"),
        (COCO, "A teddy bear hugs a doll.", "teddy bear"),
        (COCO, "A cake stands on the table.", "cake, dining table"),
        # a clause that begins with "the" or nothing, and goes on
        (VOC, "The bus stops at the corner.", "bus"),
        (VOC, "Bus stops to pick up a man.", "bus, person"),
        (VOC, "While the train stops, a dog jumps out.", "dog, train"),
        (VOC, "His boat docks at noon.", "boat"),
        (VOC, "The television shows a football game.", "tvmonitor"),
        (COCO, "The bear hugs its cub.", "bear"),
        # plurals
        (VOC, "Two bus stops on a busy street.", ""),
        (VOC, "Several empty bus stops in the rain.", ""),
        (VOC, "A few train stops along the coast.", ""),
        (VOC, "A dozen bus stops in a line.", ""),
        (VOC, "One of the bus stops has a bench.", ""),
        (VOC, "The bus stops are covered with snow.", ""),
        (VOC, "People wait at the bus stops.", "person"),
        (VOC, "A man sees bus stops on a map.", "person"),
        (VOC, "A woman stands between two bus stops.", "person"),
        (VOC, "A bus at the bus stop.", "bus"),
        (VOC, "Some boat docks, a lake and mountains.", ""),
        (VOC, "A couple of boat docks next to a lake house.", ""),
        (VOC, "Wooden boat docks stretch into the lake.", ""),
        (VOC, "An empty car park at night.", ""),
        (VOC, "The underground car parks of the city.", ""),
        (VOC, "Bird nests are seen in the tree.", ""),
        (VOC, "Two tv stands in a store.", ""),
        (VOC, "Silver dog tags on a chain.", ""),
        (VOC, "The dog toys are on the floor.", ""),
        (COCO, "Two men share bear hugs.", "person"),
        (COCO, "Two cake stands with cookies.", ""),
        (NUS, "A man walks as the sun sets.", "person, sky, sunset"),
    ],
)
def test_verb_at_the_end_of_a_compound(named, vocabulary, caption, names):
    assert named(vocabulary, caption) == names


@pytest.mark.parametrize(
    ("vocabulary", "caption", "names"),
    [
        (VOC, "An athlete trains on a track.", "person"),
        (VOC, "The woman trains dogs for the police.", "dog, person"),
        (VOC, "Two men train for a race.", "person"),
        (VOC, "A boy watches trains.", "person, train"),
        (VOC, "Two old trains sit in a yard.", "train"),
        (VOC, "A jumbo jet taxis past a row of yellow taxis.", "aeroplane, car"),
        (VOC, "Several planes taxi toward the runway.", "aeroplane"),
        (VOC, "A plane is ready to taxi.", "aeroplane"),
        (VOC, "A jet at an airport with a nice taxi and a van.", "aeroplane, car"),
        (VOC, "A waiter buses tables.", "diningtable, person"),
        (VOC, "A man ducks under a rope.", "person"),
        (VOC, "A man feeds ducks.", "bird, person"),
        (VOC, "A bus ferries people across town.", "bus, person"),
        (VOC, "Two ferries cross the bay.", "boat"),
        (VOC, "A car rams into a wall.", "car"),
        (VOC, "A nurse monitors an old man.", "person"),
        (VOC, "The president chairs the meeting.", "person"),
        (VOC, "A worker mans the station.", "person"),
        (COCO, "A rope ties the boat to the dock.", "boat"),
        (COCO, "A boat is tied to a dock.", "boat"),
        (COCO, "The sign bears the name of a street.", ""),
        (COCO, "The branch bears oranges.", "orange"),
        (COCO, "A chef bottles his sauce.", "person"),
        (COCO, "A woman reads books.", "book, person"),
        (COCO, "The ship sinks in the sea.", "boat"),
        (COCO, "Two white sinks in a bathroom.", "sink"),
        (NUS, "A woman waters the plants.", "person, plants"),
        # behind a noun that often describes another one
        (VOC, "The pilot lands the plane.", "aeroplane, person"),
        (VOC, "A baby wrapped in a blanket.", "person"),
        (VOC, "A couple parks their car.", "car, person"),
        (VOC, "A couple dogs on a lawn.", "dog"),
        (VOC, "A red passenger bus on a street.", "bus"),
        # nouns of shops, pictures and toys that are verbs too
        (VOC, "People shop in a mall.", "person"),
        (VOC, "A man stores boxes in a van.", "car, person"),
        (VOC, "A boat shop by the river.", ""),
        (VOC, "Two women model dresses.", "person"),
        (VOC, "A dog models a hat.", "dog"),
        (VOC, "A man signs a book.", "person"),
        (VOC, "A bus sign.", ""),
        (VOC, "Two children drawing pictures at a table.", "diningtable, person"),
        (VOC, "A child drawing on a chalkboard.", "person"),
        (VOC, "Two horses drawing a carriage.", "horse"),
        (VOC, "A dog drawing on a wall.", ""),
        (VOC, "A cat drawing hangs on a wall.", ""),
    ],
)
def test_noun_or_verb(named, vocabulary, caption, names):
    assert named(vocabulary, caption) == names


@pytest.mark.parametrize(
    ("vocabulary", "caption", "names"),
    [
        (COCO, "A cake shaped as a teddy bear on a wooden table.", "cake, dining table"),
        (COCO, "A teddy bear shaped cake.", "cake"),
        (COCO, "A cake made to look like a dog.", "cake"),
        (COCO, "A cake shaped like a cat next to a dog.", "cake, dog"),
        (COCO, "Cakes decorated as elephants.", "cake"),
        (COCO, "A pizza shaped into a bear.", "pizza"),
        (COCO, "A kite in the form of a bird.", "kite"),
        (COCO, "A cookie cut in the form of a dog.", ""),
        (COCO, "A sandwich cut into the shape of a bear.", "sandwich"),
        (COCO, "A man cuts into a cake.", "cake, person"),
        (COCO, "A fire hydrant painted like a dalmatian.", "fire hydrant"),
        (COCO, "A teddy bear dressed as a man.", "teddy bear"),
        (COCO, "A person in a bear suit.", "person"),
        (VOC, "A dog dressed up as a cow.", "dog"),
        (VOC, "A boat shaped like a swan.", "boat"),
        (VOC, "A bush trimmed to look like a bird.", ""),
        (VOC, "Clouds that look like a sheep.", ""),
        # a guess, and no likeness
        (VOC, "It looks like a dog is driving the car.", "car, dog"),
        (VOC, "What looks like a sheep stands on the road.", "sheep"),
        (VOC, "A cake and it looks like a train.", ""),
        # a silhouette is of somebody who is there, unless it is drawn
        (VOC, "The silhouette of two people sitting on a bench.", "person"),
        (VOC, "Silhouettes of birds on a wire.", "bird"),
        (VOC, "Horse silhouettes against a red sky.", "horse"),
        (VOC, "A sign with the silhouette of a dog.", ""),
        (VOC, "A cat silhouette sticker on a car.", "car"),
        (VOC, "The shadow of a plane falls on a field.", ""),
        (VOC, "In the shadow of a boat a man sleeps.", "boat, person"),
        # most captions are pictures of a thing; some pictures are in the picture
        (VOC, "A black and white picture of a boat.", "boat"),
        (VOC, "A man takes a picture of a dog.", "dog, person"),
        (VOC, "A shirt with a picture of a cat.", ""),
        (VOC, "A poster of a horse.", ""),
        # models of things
        (VOC, "A toy model of a train.", ""),
        (VOC, "A boy builds a model ship.", "person"),
        (VOC, "A small model yellow boat.", ""),
        (VOC, "A car model on a shelf.", ""),
        (VOC, "A 1950s model car on the road.", "car"),
        (VOC, "The latest model of a sports car.", "car"),
    ],
)
def test_likeness(named, vocabulary, caption, names):
    assert named(vocabulary, caption) == names
