import pytest

from t2ipal.evaluation.class_names import ClassNames
from t2ipal.evaluation.label_tables import read_labels

NAMES = ClassNames(("dog", "pottedplant", "tv, old", "person"))
DOG, PLANT, TV, PERSON = range(4)


@pytest.mark.parametrize(
    "text",
    [
        "file,labels\na.jpg,dog;person\nb.jpg,\n",
        "File , LABELS\na.jpg,dog|person\nb.jpg,\n",
        'image,label\na.jpg,"dog,person"\nb.jpg,\n',
        "path;classes\na.jpg;dog|person\nb.jpg;\n",
        "filename\tlabels\na.jpg\tdog, person\nb.jpg\t\n",
        "file,labels\na.jpg,dog\na.jpg,person\nb.jpg,\n\n",
        "id,file,labels,width\r\n7,a.jpg, Dog ; PERSON ,640\r\n8,b.jpg,,480\r\n",
        "file,dog,person\na.jpg,1,1\nb.jpg,0,0\n",
        "file,split,Dog,Person\na.jpg,test,1.0,True\nb.jpg,test,,false\n",
        "sep=;\nfile;labels\na.jpg;dog,person\nb.jpg;\n",
        "\nfile,labels\ra.jpg,dog;person\rb.jpg,\r",
        "file,labels,\na.jpg,dog;person,\n,,\nb.jpg\n",
        '"file","labels"\n"a.jpg","[\'dog\', \'person\']"\n"b.jpg","[]"\n',
        "image,tags\na.jpg,dog person\nb.jpg,\n",
        ",file,dog,person,remark\n0,a.jpg,yes,100%,\n1,b.jpg,no,0%,\n",
        "Unnamed: 0;FILE;dog;person\n0;a.jpg;1,0;Y\n1;b.jpg;0,0;n\n",
    ],
)
def test_ways_to_write_the_same(text):
    assert read_labels(text, NAMES, "here")[0] == {"a.jpg": {DOG, PERSON}, "b.jpg": set()}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("Potted plant", {PLANT}),
        ("potted_plant;potted-plant", {PLANT}),
        ('"tv, old"', {TV}),
        ('"tv, old;dog"', {TV, DOG}),
        ("dog;;", {DOG}),
    ],
)
def test_names_and_separators(cell, expected):
    assert read_labels(f"file,labels\na.jpg,{cell}\n", NAMES, "here")[0] == {"a.jpg": expected}


def test_said():
    assert read_labels("file,labels\na,dog", NAMES, "")[1] == "columns file and labels"
    said = read_labels("file,dog,person\na,1,0", NAMES, "")[1]
    assert said == "column file, and 2 columns of 0 and 1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,labels\na,dog\nb,dgo\n", "class in here, row 3, 'dgo'. Did you mean 'dog'"),
        ("name,labels\na,dog\n", r"a column of files \(file, .*\), got name, labels"),
        ("", "a column of files .* got nothing"),
        ("file,labels\na.jpg,dog,person\n", "row 2, has more cells than there are columns"),
        ("file,dog,persn\na.jpg,1,0\n", "class in here 'persn'. Did you mean 'person'"),
        ("file,dog\na.jpg,2\n", "Column dog of here must hold 0 and 1, got '2'"),
        ("file,width\na.jpg,640\n", "a column of labels .* got width"),
        ("file\na.jpg\n", "a column of labels .* got none"),
        ("file,dog\na.jpg,0.7\n", "Column dog of here must hold 0 and 1, got '0.7'"),
        ("file,dog\na.jpg,-1\n", "Column dog of here must hold 0 and 1, got '-1'"),
        ("file,labels,labels\na.jpg,dog,dog\n", "here names the column labels twice"),
        ("file,labels\n,dog\n", "here, row 2, names no file"),
        ('file,labels\na.jpg,dog\nb.jpg,"dog\nc.jpg,dog\n', "here, row 3, is no valid csv"),
        ('file,labels\na.jpg,"dog" too\n', "here, row 2, is no valid csv"),
    ],
)
def test_what_cannot_be_read(text, message):
    with pytest.raises(ValueError, match=message):
        read_labels(text, NAMES, "here")
