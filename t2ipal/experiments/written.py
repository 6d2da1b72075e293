"""The pages of a reproduction: JSON, Markdown, LaTeX and one HTML page, figures as SVG.

Each is made from what `t2ipal.experiments.results.found` gives, and from nothing else.
"""

import shlex
from collections.abc import Sequence
from typing import Any

from t2ipal.experiments.charts import card_file, chart, chart_file
from t2ipal.experiments.paper import BEYOND
from t2ipal.experiments.results import Contents, by_method, cells_of, found
from t2ipal.experiments.rows import Table
from t2ipal.report.charts import swatch
from t2ipal.report.markup import Markup, element, fragment
from t2ipal.report.page import document
from t2ipal.report.tables import head_cell, table
from t2ipal.store import Store, json_bytes

NAME, FIGURES = "reproduction", "figures"
"""Of the pages, and the folder of their figures."""
ABOUT = (
    "Every table and figure of T2I-PAL (TPAMI 2025) that has numbers or pictures, measured anew. "
    "The authors never released code."
)
MARKS = {"confirmed": "✓", "refuted": "✗", "undecided": "?", "not measured": "–"}


def write_pages(contents: Contents, store: Store) -> dict[str, Any]:
    """Writes everything; returns the summary that the job prints."""
    result = found(contents)
    figures = {item["name"]: figure_file(item) for item in result["items"]}
    figures = {name: text for name, text in figures.items() if text}
    for name, text in figures.items():
        store.write(f"{FIGURES}/{name}.svg", text.encode())
    store.write(f"{NAME}.html", page(result).encode())
    store.write(f"{NAME}.md", markdown(result, f"{FIGURES}/").encode())
    store.write(f"{NAME}.tex", latex(result).encode())
    plain = {**result, "items": [_without_pictures(item) for item in result["items"]]}
    store.write(f"{NAME}.json", json_bytes(plain))
    claims = [claim for item in result["items"] for claim in item["claims"]]
    outcomes = {kind: sum(c["outcome"] == kind for c in claims) for kind in MARKS}
    return {
        "output": store.uri, "items": [item["name"] for item in result["items"]],
        "cells": result["status"], "claims": outcomes, "page": f"{store.uri}/{NAME}.html",
        **{
            item.name: by_method(item, contents)
            for item in contents.items
            if isinstance(item, Table) and item.name == "plus"
        },
    }  # fmt: skip


def _without_pictures(item: dict[str, Any]) -> dict[str, Any]:
    if item["kind"] != "pictures":
        return item
    cards = [{"title": card["title"], "lines": card["lines"]} for card in item["cards"]]
    return {**item, "cards": cards}


def figure_file(item: dict[str, Any]) -> str:
    """An item as SVG; empty where it is a table, or nothing of it is there."""
    if item["kind"] == "chart":
        return chart_file(item["panels"])
    return card_file(item["cards"]) if item["kind"] == "pictures" and item["cards"] else ""


def cell_text(cell: dict[str, Any], plus: str = " ± ") -> str:
    """A cell as a reader sees it."""
    if cell["status"] == "none":
        return ""
    if cell["status"] == "data missing":
        return "data missing"
    if cell["status"] == "published only":
        return f"{cell['mean']:.1f}"
    several = len(cell["values"]) > 1
    return f"{cell['mean']:.1f}" + (f"{plus}{cell['std']:.1f}" if several else "")


def effect_text(claim: dict[str, Any]) -> str:
    """How large the effect of a claim is on each test set."""
    return "; ".join(f"{each['test_set']} {gain_text(each)}" for each in claim["differences"])


def gain_text(difference: dict[str, Any]) -> str:
    """A difference of two systems on one test set."""
    p = "" if difference["p"] is None else f", p = {difference['p']:.2g}"
    spread = f" ± {difference['std']:.1f}" if difference["seeds"] > 1 else ""
    return f"{difference['mean']:+.1f}{spread}{p}"


def lacking(item: dict[str, Any]) -> list[str]:
    """What the missing cells of an item need."""
    missing = [cell for cell in cells_of(item) if cell["status"] == "data missing"]
    return [*dict.fromkeys(cell["reason"] for cell in missing)]


def _remarks(item: dict[str, Any]) -> list[str]:
    return [*item["notes"], *(f"Data missing: {each}." for each in lacking(item))]


def heading(item: dict[str, Any]) -> str:
    """As the paper numbers it."""
    name = item["name"]
    if name in BEYOND:
        return item["title"]
    kind, number = ("Table", name[5:]) if name.startswith("table") else ("Figure", name[3:])
    return f"{kind} {number}. {item['title']}"


def _rows_of(item: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and body of a table, or of the numbers behind a chart."""
    if item["kind"] == "table":
        head = ["", *item["columns"]]
        return head, [[row["title"], *map(cell_text, row["cells"])] for row in item["rows"]]
    body = []
    for panel in item["panels"]:
        names = [series["title"] for series in panel["series"]]
        head = [panel["x_label"], *names]
        for points in zip(*(series["points"] for series in panel["series"])):
            body.append([f"{panel['x_label']} {points[0]['x']:g}", *map(cell_text, points)])
    return ["", *head[1:]], body


def markdown(result: dict[str, Any], figures: str) -> str:
    """The whole as Markdown.

    Args:
        result: of `found`.
        figures: prefix of the figures' addresses.
    """
    lines = [
        f"# The paper's tables and figures on {result['on']}", "", ABOUT, "",
        f"Made by `{command(result)}`.", "",
    ]  # fmt: skip
    claims = [claim for item in result["items"] for claim in item["claims"]]
    if claims:
        lines += ["## Claims", "", "| claim | outcome | effect, mAP |", "|---|---|---|"]
        for claim in claims:
            lines.append(table_line([claim["claim"], claim["outcome"], effect_text(claim)]))
        lines.append("")
    for item in result["items"]:
        lines += [f"## {heading(item)}", ""]
        if item["kind"] != "table" and (item["kind"] == "chart" or item["cards"]):
            lines += [f"![{item['title']}]({figures}{item['name']}.svg)", ""]
        if item["kind"] == "pictures":
            for card in item["cards"]:
                if "image" not in card:
                    lines += [f"- {card['title']}: {'; '.join(card['lines'])}"]
            lines.append("")
        else:
            head, body = _rows_of(item)
            lines += [table_line(head), table_line(["---", *["---:"] * (len(head) - 1)])]
            lines += [table_line(row) for row in body]
            lines.append("")
        lines += [f"{remark}\n" for remark in _remarks(item)]
    lines += ["## How to read this", "", *(f"- {each}" for each in result["footers"]), ""]
    return "\n".join(lines)


def table_line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def command(result: dict[str, Any]) -> str:
    """That makes the same again."""
    settings = result["settings"]
    words = ["python", "jobs/reproduce.py", "--items", *settings["items"], "--on", result["on"]]
    words += ["--seeds", str(result["seeds"])] + (["--quick"] if result["quick"] else [])
    for name in ("test_root", "other", "episodes"):
        if settings.get(name):
            words += [f"--{name.replace('_', '-')}", settings[name]]
    if settings.get("sets"):
        words += ["--sets", *settings["sets"]]
    for name, usual in (("model", "pictovoc"), ("pretrained", "openai")):
        if settings.get("backbone", {}).get(name, usual) != usual:
            words += [f"--{name}", settings["backbone"][name]]
    return shlex.join(words)


_TEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$", "$": r"\$", "−": "$-$"}
_TEX |= {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\~{}", "^": r"\^{}"}
_TEX |= {"<": r"$<$", ">": r"$>$"}


def tex_text(text: str) -> str:
    """A text with what LaTeX reads as commands escaped."""
    return "".join(_TEX.get(character, character) for character in text)


def latex(result: dict[str, Any]) -> str:
    r"""Every table for `\input`; needs the package booktabs."""
    parts = [f"% {command(result)}\n% needs \\usepackage{{booktabs,graphicx}}\n"]
    for item in result["items"]:
        if item["kind"] == "pictures":
            continue
        head, body = _rows_of(item)
        rows = [head, *body]
        text = [" & ".join(map(tex_text, row)) + r" \\" for row in rows]
        columns = "l" + "r" * (len(head) - 1)
        caption = tex_text(f"{item['title']} ({result['on']}, {result['seeds']} seeds).")
        parts.append(
            f"\\begin{{table}}\n\\caption{{{caption}}}\n\\label{{tab:{item['name']}}}\n"
            f"\\centering\n\\resizebox{{\\linewidth}}{{!}}{{%\n\\begin{{tabular}}{{{columns}}}\n"
            f"\\toprule\n{text[0]}\n\\midrule\n" + "\n".join(text[1:]) + "\n\\bottomrule\n"
            "\\end{tabular}}\n\\end{table}\n"
        )
    return "\n".join(parts)


def page(result: dict[str, Any]) -> str:
    """One self-contained HTML page without scripts."""
    links = [element("a", "Claims", href="#claims")]
    links += [element("a", _short(item), href=f"#{item['name']}") for item in result["items"]]
    sections = [element("section", element("h2", heading(item)), _body(item), id=item["name"])
                for item in result["items"]]  # fmt: skip
    status = ", ".join(f"{count} {name}" for name, count in result["status"].items())
    return document(
        f"T2I-PAL on {result['on']}: the paper's tables and figures",
        f"{ABOUT} {result['seeds']} seeds. Cells: {status}.",
        element("nav", links, aria_label="Items"),
        element("main", _claims(result), sections, _footer(result)),
    )


def _short(item: dict[str, Any]) -> str:
    return heading(item).partition(".")[0]


def _claims(result: dict[str, Any]) -> Markup | None:
    claims = [claim for item in result["items"] for claim in item["claims"]]
    if not claims:
        return None
    head = [head_cell("Claim"), head_cell("Outcome"), head_cell("Effect in mAP, by test set")]
    rows = []
    for claim in claims:
        outcome = element("td", f"{MARKS[claim['outcome']]} {claim['outcome']}", class_="number")
        name = element("th", claim["claim"], scope="row")
        rows.append(element("tr", name, outcome, element("td", effect_text(claim))))
    shown = table("What the paper claims, and what the seeds say.", head, rows)
    return element("section", element("h2", "Claims"), shown, id="claims")


def _body(item: dict[str, Any]) -> Markup:
    remarks = [element("p", remark, class_="lead") for remark in _remarks(item)]
    if item["kind"] == "pictures":
        return fragment(_cards(item), remarks)
    legend = None
    if item["kind"] == "chart":
        names = [series["title"] for series in item["panels"][0]["series"]]
        legend = element(
            "p", [fragment(swatch(1 + at), name, " ") for at, name in enumerate(names)],
            [chart(panel) for panel in item["panels"]],
        )  # fmt: skip
    head, body = _rows_of(item)
    rows = [
        element("tr", element("th", row[0], scope="row"),
                (element("td", cell, class_="number") for cell in row[1:]))
        for row in body
    ]  # fmt: skip
    cells = [head_cell(head[0]), *(head_cell(name, "number") for name in head[1:])]
    return fragment(
        legend, table("mAP in percent unless a column says otherwise.", cells, rows), remarks
    )


def _cards(item: dict[str, Any]) -> Markup:
    if not item["cards"]:
        return element("p", "Not measured: what it needs is not there.", class_="lead")
    shown = []
    for card in item["cards"]:
        picture = None
        if "image" in card:
            picture = element("img", src=card["image"], alt=card["title"], loading="lazy")
        lines = [element("li", line) for line in card["lines"]]
        shown.append(
            element(
                "figure",
                picture,
                element("figcaption", element("strong", card["title"]), element("ul", lines)),
            )
        )
    return element("div", shown, class_="gallery")


def _footer(result: dict[str, Any]) -> Markup:
    lines = [element("li", each) for each in result["footers"]]
    made = element("p", "Made by ", element("code", command(result)), ".", class_="lead")
    return element(
        "section", element("h2", "How to read this"), element("ul", lines), made, id="reading"
    )
