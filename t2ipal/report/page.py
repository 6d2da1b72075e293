"""The page around the sections: head, navigation, and the file; and the head of any other page."""

from pathlib import Path

from t2ipal.report import class_table, gallery, record, results
from t2ipal.report.contents import Report
from t2ipal.report.markup import Markup, element, fragment
from t2ipal.report.results import facts, headline

SECTIONS = (
    ("results", "Results", results.results),
    ("classes", "Classes", class_table.classes),
    ("gap", "Modality gap", results.modality_gap),
    ("images", "Synthetic images", gallery.images),
    ("heatmaps", "Heatmaps", gallery.heatmaps),
    ("curves", "Training", record.curves),
    ("search", "Search", record.search),
    ("pipeline", "Pipeline", record.pipeline),
    ("notes", "Notes", record.notes),
    ("settings", "Settings", record.settings),
)
"""Anchor, heading and builder of each section in page order; None from a builder leaves it out."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Tells the browser to load nothing at all: the page is complete in itself."""


def render_report(report: Report) -> str:
    """The page as text: self-contained HTML without scripts; the same report, the same bytes."""
    bodies = [(anchor, title, build(report)) for anchor, title, build in SECTIONS]
    shown = [(anchor, title, body) for anchor, title, body in bodies if body is not None]
    links = [element("a", title, href=f"#{anchor}") for anchor, title, _ in shown]
    return document(
        report.title,
        report.subtitle,
        element("nav", links, aria_label="Sections") if len(shown) > 1 else None,
        element(
            "main",
            headline(report),
            facts(report),
            results.missing(report),
            (
                element("section", element("h2", title), body, id=anchor)
                for anchor, title, body in shown
            ),
        ),
    )


def document(title: str, subtitle: str, *parts: object) -> str:
    """A whole page of some parts below its title; it loads nothing and runs nothing."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("link", rel="icon", href="data:,"),
        element("style", Markup((Path(__file__).parent / "style.css").read_text("utf-8"))),
    )
    heading = element("p", subtitle, class_="subtitle") if subtitle else None
    body = element("body", element("header", element("h1", title), heading), *parts)
    return fragment(
        Markup("<!DOCTYPE html>\n"), element("html", head, body, lang="en"), Markup("\n")
    )
