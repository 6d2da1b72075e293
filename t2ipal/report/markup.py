"""HTML as nested calls, in which every text is escaped unless it was made here."""

import html
from collections.abc import Iterable


class Markup(str):
    """A piece of finished HTML; any other string is text and is escaped on its way in."""


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """`<name attributes>children</name>`; a void element where there is no child to hold.

    Args:
        children: text, markup, or iterables of both; None is left out.
        attributes: `class_` becomes `class`, `aria_label` becomes `aria-label`; None and False are
            left out, True is an attribute without a value.
    """
    opening = name
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        opening += " " + key.rstrip("_").replace("_", "-")
        if value is not True:
            opening += f'="{html.escape(_attribute(value))}"'
    if name in ("img", "meta", "link", "br"):
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{fragment(*children)}</{name}>")


def fragment(*children: object) -> Markup:
    """The children one after another, texts escaped."""
    pieces: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            pieces.append(child)
        elif isinstance(child, Iterable) and not isinstance(child, str):
            pieces.append(fragment(*child))
        else:
            pieces.append(html.escape(str(child)))
    return Markup("".join(pieces))


def _attribute(value: object) -> str:
    # Coordinates to a hundredth of a pixel keep the page small and the same on every machine.
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
