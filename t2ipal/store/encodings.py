"""The encoding of a text that somebody else wrote, by the mark at its start."""

import codecs

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def marked_encoding(data: bytes) -> str | None:
    """What a byte-order mark tells; None where there is none."""
    return next((encoding for mark, encoding in MARKS if data.startswith(mark)), None)
