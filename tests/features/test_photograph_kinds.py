import pytest

from t2ipal.features.photograph_kinds import ENDINGS, is_photograph, why_unread
from t2ipal.features.photographs import open_photograph


def test_names_of_photographs():
    for name in ("a.jpg", "b/c.JPEG", "d.Tiff", "x.y.webp", "phone.HEIC", "e.jfif", "f.avif"):
        assert is_photograph(name), name
    for name in (
        "a.txt",
        "jpg",
        "photos.jpg/notes",
        "a.jpg.part",
        "b/._a.jpg",
        ".png",
        "Thumbs.db",
    ):
        assert not is_photograph(name), name
    assert ENDINGS[0] == "jpg"


SAVE = ", which is not read here: save it as JPEG or PNG"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", f"HEIC{SAVE}"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", f"HEIC{SAVE}"),
        (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "damaged, or AVIF that this Pillow does not"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", f"video{SAVE}"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", f"SVG{SAVE}"),
        (b"<?xml version='1.0'?>\n<svg width='3'/>", f"SVG{SAVE}"),
        (b"\xff\x0aJXL", f"JPEG XL{SAVE}"),
        (b"%PDF-1.7", f"PDF{SAVE}"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", f"PostScript{SAVE}"),
        (b"II*\0\x08\0\0\0\0\0", "damaged, or a rare kind of TIFF"),
        (b"\xff\xd8\xff\xe0", "damaged, or a rare kind of JPEG"),
        (b"\n<!DOCTYPE html><html>not found</html>", "not an image but a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not an image but a pointer of git LFS"),
        (b"a text", "not an image"),
    ],
)
def test_what_is_not_read_says_what_it_is(data, reason):
    assert why_unread(data).startswith(reason)
    with pytest.raises(ValueError) as refused:
        open_photograph(data)
    assert str(refused.value) == why_unread(data)
