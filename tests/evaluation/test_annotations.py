import pytest

from t2ipal.evaluation.annotations import read_annotation

BIRD = [("bird", False)]
OBJECT = "<object><name>bird</name></object>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"<annotation>{OBJECT}</annotation>", BIRD),
        ("<annotation/>", []),
        (f'\n<?xml version="1.0"?>\n<annotation>{OBJECT}</annotation>', BIRD),
        (f'<!DOCTYPE a SYSTEM "voc.dtd"><annotation><!-- \u6c49 -->{OBJECT}</annotation>', BIRD),
        (f'<annotation xmlns="http://x.org">{OBJECT}</annotation>', BIRD),
        ('<v:a xmlns:v="u"><v:object><v:name> Tv </v:name></v:object></v:a>', [("Tv", False)]),
        ("<a><object><name><![CDATA[dog]]></name><difficult> 1 </difficult></object></a>",
         [("dog", True)]),
        ("<a><object><part><name>head</name></part><name>person</name></object></a>",
         [("person", False)]),
        (f"<a>{OBJECT}<object><name>cat</name><difficult>True</difficult></object></a>",
         [*BIRD, ("cat", True)]),
        ('<!DOCTYPE a [<!ENTITY w "dog">]><a><object><name>&w;</name></object></a>',
         [("dog", False)]),
    ],
)  # fmt: skip
def test_objects(text, expected):
    assert read_annotation(text.encode(), "here") == expected


def test_the_encoding_that_is_declared():
    head = '<?xml version="1.0" encoding="gb2312"?>\n<!-- \u6c49\u5b57 -->'
    data = f"{head}<annotation>{OBJECT}</annotation>".encode("gb2312")
    assert read_annotation(data, "here") == BIRD


def laughs(depth=9):
    """XML of 600 bytes that would be gigabytes of text."""
    entities = "".join(f'<!ENTITY l{n} "{10 * f"&l{n - 1};"}">' for n in range(1, depth + 1))
    return f'<!DOCTYPE a [<!ENTITY l0 "lol">{entities}]><a>&l{depth};</a>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "here is no valid XML: no element found: line 1"),
        ("<annotation>\n<object>", "here is no valid XML: no element found: line 2"),
        ("<a>\0</a>", "here is no valid XML"),
        (laughs(), "here is no valid XML: limit on input amplification"),
        ('<!DOCTYPE a [<!ENTITY w SYSTEM "file:///etc/passwd">]><a>&w;</a>', "undefined entity"),
        (f"<a>{OBJECT}<object/></a>", "here: object 2 has no name"),
        ("<a><object><name>dog</name><difficult>2</difficult></object></a>",
         "here: difficult of object 1 must be 0 or 1, got 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(text, message):
    with pytest.raises(ValueError, match=message):
        read_annotation(text.encode(), "here")
