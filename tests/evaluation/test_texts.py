import pytest

from t2ipal.evaluation.texts import decode, decode_xml, read_bytes, read_lines
from t2ipal.store import Store


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_with_and_without_a_mark(encoding):
    assert decode("a\u6c49é\n".encode(encoding), "here") == "a\u6c49é\n"


def test_what_is_no_text_is_named():
    message = "here must be text in UTF-8, got byte 0xe9 in line 3. Save it as UTF-8."
    with pytest.raises(ValueError, match=message):
        decode("a\nb\ncaf\xe9".encode("latin-1"), "here")


def test_lines(tmp_path):
    store = Store(tmp_path)
    for text in ("b 1\n\n  a\t\n", "b 1\r\n \r\na\r\n", "b 1\ra", "\ufeffb 1\na"):
        store.write("list.txt", text.encode())
        assert read_lines(store, "list.txt") == ["b 1", "a"]
    with pytest.raises(FileNotFoundError, match=r"No file .*/none; the test set must be unpacked"):
        read_bytes(store, "none")


HEAD = '<?xml version="1.0" encoding="{}"?>'


@pytest.mark.parametrize("encoding", ["gb2312", "GBK", "gb18030", "utf-8", "UTF-8", "utf-16"])
def test_xml_in_the_encoding_that_it_declares(encoding):
    text = HEAD.format(encoding) + "<a>\u6c49</a>"
    assert decode_xml(text.encode(encoding), "here").lstrip("\ufeff") == text


def test_xml_that_declares_another_encoding_than_it_is_in():
    text = HEAD.format("utf-16") + "<a>\u6c49</a>"
    assert decode_xml(text.encode(), "here") == text
    assert decode_xml(text.encode("utf-16-be"), "here") == text
    rare = HEAD.format("gb2312") + "<a>\u9555</a>"  # in GBK alone
    assert decode_xml(rare.encode("gbk"), "here") == rare
    with pytest.raises(ValueError, match="here says that it is in 'klingon', which is not known"):
        decode_xml(HEAD.format("klingon").encode(), "here")
    with pytest.raises(ValueError, match="here must be text in ASCII, got byte 0xe6 in line 1"):
        decode_xml((HEAD.format("ascii") + "\u6c49").encode(), "here")
