"""Text of lists, tables and annotations that other tools wrote, whatever they wrote it in."""

import re

from t2ipal.store import Store, marked_encoding

DECLARATION = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
LARGER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc-kr": "cp949"}
"""Encodings that files are said to be in, and those of the same bytes that have more characters."""


def read_text(root: Store, key: str) -> str:
    """The text of a file of a test set: UTF-8, or what the mark at its start says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such text.
    """
    return decode(read_bytes(root, key), f"{root.uri}/{key}")


def read_lines(root: Store, key: str) -> list[str]:
    """The lines of a text that are not blank, without spaces around."""
    return [line.strip() for line in read_text(root, key).splitlines() if line.strip()]


def read_bytes(root: Store, key: str) -> bytes:
    """A file of a test set.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        return root.read(key)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"No file {root.uri}/{key}; the test set must be unpacked as its authors pack it."
        ) from error


def decode(data: bytes, place: str) -> str:
    """Bytes as text, by their mark or as UTF-8.

    Raises:
        ValueError: they are neither; names the line.
    """
    return _decoded(data, marked_encoding(data) or "utf-8", place)


def decode_xml(data: bytes, place: str) -> str:
    """Bytes of XML as text, in the encoding that their mark or their first line tells.

    Raises:
        ValueError: they are not in it, or nobody knows it.
    """
    declared = DECLARATION.match(data)
    if declared is None or marked_encoding(data):
        if data[:4] in (b"<\0?\0", b"\0<\0?"):  # without a mark
            return _decoded(data, "utf-16-le" if data[0] else "utf-16-be", place)
        return decode(data, place)
    encoding = declared[1].decode().lower()
    if encoding.startswith(("utf-16", "utf-32", "ucs")):  # in which this line would look otherwise
        encoding = "utf-8"
    return _decoded(data, LARGER.get(encoding, encoding), place)


def _decoded(data: bytes, encoding: str, place: str) -> str:
    try:
        return data.decode(encoding)
    except LookupError as error:
        raise ValueError(
            f"{place} says that it is in {encoding!r}, which is not known. Save it as UTF-8."
        ) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{place} must be text in {encoding.removesuffix('-sig').upper()}, got byte "
            f"0x{data[error.start]:02x} in line {line}. Save it as UTF-8."
        ) from error
