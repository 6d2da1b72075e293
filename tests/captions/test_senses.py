import pytest

VOC = "voc2007"
COCO = "coco2014"


@pytest.mark.parametrize(
    ("vocabulary", "caption", "names"),
    [
        # players, jugs and dough
        (COCO, "A left handed pitcher in a gray uniform.", "person"),
        (COCO, "The pitcher stands on the mound.", "person"),
        (COCO, "A relief pitcher warms up.", "person"),
        (COCO, "A softball pitcher lets go of the ball.", "person, sports ball"),
        (COCO, "A pitcher filled with tulips.", ""),
        (COCO, "A vase full of irises with a pitcher on an end table.", "vase"),
        (COCO, "Pitchers of water stand on the table.", "dining table"),
        (COCO, "Two pitchers and six cups.", "cup"),
        (COCO, "A woman pours milk from a pitcher.", "person"),
        (COCO, "A pitcher's mound on an empty field.", ""),
        (COCO, "The batter swings at the ball.", "baseball bat, person, sports ball"),
        (COCO, "A bowl of batter on the counter.", "bowl"),
        # models who pose
        (COCO, "A young woman model sitting on a folding chair.", "chair, person"),
        (COCO, "A plus size model sits on a couch.", "couch, person"),
        (VOC, "A fashion model walks down a runway.", "person"),
        (VOC, "A young male model leans on a car.", "car, person"),
        (VOC, "A model in a blue and white dress sits for a photo.", "person"),
        (VOC, "Two models wearing bikinis.", "person"),
        (VOC, "A model of a ship in a bottle.", "bottle"),
        (VOC, "A model train set with trees.", ""),
        # groups and hands
        (COCO, "A large group is sitting together.", "person"),
        (COCO, "A group of horses.", "horse"),
        (COCO, "Zebras standing in a close little group.", "zebra"),
        (COCO, "Bags sorted into groups.", ""),
        (COCO, "A hand holds a banana.", "banana, person"),
        (COCO, "A hand towel next to a sink.", "sink"),
        (COCO, "The hands of a large clock.", "clock"),
        # railway cars
        (VOC, "A train car is sitting on some train tracks.", "train"),
        (VOC, "Two subway cars pass each other in a tunnel.", "train"),
        (VOC, "Some boxcars and a red caboose.", "train"),
        (VOC, "The passenger cars of a train.", "train"),
        (VOC, "A train pulling red, white and blue cars.", "train"),
        (VOC, "A train on the tracks with many cars behind it.", "train"),
        (VOC, "A train engine is followed by a line of open cars.", "train"),
        (VOC, "A train crosses a bridge above cars.", "car, train"),
        (VOC, "A train standing on the tracks with two cars and a van.", "car, train"),
        (VOC, "A row of cars waits as a train passes.", "car, train"),
        (VOC, "A train and a car at a crossing.", "car, train"),
        (VOC, "A cable car above the trees.", ""),
        (VOC, "People wait on a subway platform.", "person"),
        (COCO, "A streetcar passes a shop.", "train"),
    ],
)
def test_sense(named, vocabulary, caption, names):
    assert named(vocabulary, caption) == names
