"""What PASCAL VOC's XML says of one photograph; knows neither folders nor classes."""

import re
import xml.etree.ElementTree as ElementTree
from typing import NamedTuple

from t2ipal.config import require
from t2ipal.evaluation.texts import decode_xml

DECLARATION = re.compile(r"\s*<\?xml.*?\?>", re.DOTALL)
DIFFICULT = {
    "1": True,
    "true": True,
    "yes": True,
    "0": False,
    "false": False,
    "no": False,
    "": False,
}


class AnnotatedObject(NamedTuple):
    """One object."""

    name: str
    difficult: bool


def read_annotation(data: bytes, place: str) -> list[AnnotatedObject]:
    """The objects of an annotation, whatever its namespaces.

    Args:
        data: the XML.
        place: of it, for messages.

    Raises:
        ValueError: it cannot be read, or an object has no name.
    """
    # As text, for the parser itself knows few encodings.
    text = DECLARATION.sub("", decode_xml(data, place).lstrip("\ufeff"), count=1)
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{place} is no valid XML: {error}.") from error
    objects = []
    for number, item in enumerate((e for e in root.iter() if _name(e) == "object"), 1):
        # In this order, so that the first of a name counts.
        fields = {_name(field): (field.text or "").strip() for field in reversed(item)}
        hard = fields.get("difficult", "").lower()
        require(bool(fields.get("name")), f"{place}: object {number} has no name.")
        require(
            hard in DIFFICULT, f"{place}: difficult of object {number} must be 0 or 1, got {hard}."
        )
        objects.append(AnnotatedObject(fields["name"], DIFFICULT[hard]))
    return objects


def _name(element: ElementTree.Element) -> str:
    """Of its tag, without a namespace; comments have no text there."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
