"""The pages, from plain values."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from t2ipal.experiments.charts import card_file, chart_file
from t2ipal.experiments.written import (
    cell_text,
    command,
    effect_text,
    figure_file,
    heading,
    latex,
    markdown,
    page,
    tex_text,
)
from t2ipal.report.pictures import data_uri

MEASURED = {"status": "measured", "mean": 70.04, "std": 0.26, "values": [69.8, 70.3]}
TOLD = {"status": "published only", "mean": 88.8, "backbone": "RN50", "source": "Table I"}
LACKING = {"status": "data missing", "reason": "a set of images: --sets original=RUN"}
CLAIM = {
    "claim": "A over B, <b>bold</b>",
    "outcome": "confirmed",
    "differences": [{"test_set": "pictovoc", "mean": 3.5, "std": 0.2, "seeds": 5, "p": 0.0004}],
}
CARD = {
    "title": "a <script>",
    "lines": ["first", "second"],
    "image": data_uri(np.zeros((8, 8, 3), np.uint8)),
}
RESULT = {
    "on": "pictovoc", "seeds": 2, "quick": False, "test_sets": ["pictovoc"],
    "settings": {"items": ["table1", "fig3", "fig8"]},
    "status": {"measured": 3, "published only": 1, "data missing": 1},
    "footers": ["One thing.", "Another & more."],
    "items": [
        {
            "kind": "table", "name": "table1", "title": "Zero-shot", "notes": ["A note."],
            "claims": [CLAIM], "columns": ["pictovoc", "VOC07 RN50 (paper)", "x|y"],
            "rows": [{"title": "T2I_PAL", "cells": [MEASURED, TOLD, LACKING]}],
        },
        {
            "kind": "chart", "name": "fig3", "title": "Lambda", "notes": [], "claims": [],
            "panels": [
                {
                    "title": "share", "x_label": "lambda",
                    "series": [
                        {
                            "title": "pictovoc",
                            "points": [{"x": 0.0, **MEASURED}, {"x": 1.0, **MEASURED}],
                        }
                    ],
                }
            ],
        },
        {
            "kind": "pictures", "name": "fig8", "title": "Pairs", "notes": [], "claims": [],
            "cards": [CARD],
        },
    ],
}  # fmt: skip


def test_a_cell_says_what_it_is():
    assert cell_text(MEASURED) == "70.0 ± 0.3"
    assert cell_text({**MEASURED, "values": [70.04]}) == "70.0"
    assert cell_text(TOLD) == "88.8" and cell_text(LACKING) == "data missing"
    assert cell_text({"status": "none"}) == ""
    assert heading(RESULT["items"][0]) == "Table 1. Zero-shot"
    assert heading(RESULT["items"][1]) == "Figure 3. Lambda"
    assert effect_text(CLAIM) == "pictovoc +3.5 ± 0.2, p = 0.0004"


def test_markdown_has_every_table_and_names_its_figures():
    text = markdown(RESULT, "figures/")
    assert "| T2I_PAL | 70.0 ± 0.3 | 88.8 | data missing |" in text
    assert "|  | pictovoc | VOC07 RN50 (paper) | x\\|y |" in text
    assert "![Lambda](figures/fig3.svg)" in text and "![Pairs](figures/fig8.svg)" in text
    assert "Data missing: a set of images: --sets original=RUN." in text
    assert "| A over B, <b>bold</b> | confirmed | pictovoc +3.5 ± 0.2, p = 0.0004 |" in text
    assert command(RESULT) in text and "- Another & more." in text


def test_the_command_makes_the_same_again():
    assert command(RESULT) == (
        "python jobs/reproduce.py --items table1 fig3 fig8 --on pictovoc --seeds 2"
    )
    assert command({**RESULT, "quick": True}).endswith("--quick")


def test_latex_escapes_what_it_reads_as_commands():
    assert tex_text("50% of a_b & $5 ± 1") == r"50\% of a\_b \& \$5 $\pm$ 1"
    text = latex(RESULT)
    assert r"T2I\_PAL & 70.0 $\pm$ 0.3 & 88.8 & data missing \\" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2  # no pictures
    assert r"\label{tab:table1}" in text


def test_the_page_is_whole_and_escaped():
    text = page(RESULT)
    assert "<script>" not in text and "a &lt;script&gt;" in text
    assert "A over B, &lt;b&gt;bold&lt;/b&gt;" in text and "✓ confirmed" in text
    assert "5 seeds" not in text and "2 seeds" in text
    assert 'id="fig8"' in text and 'href="#table1"' in text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("item", RESULT["items"][1:], ids=["chart", "cards"])
def test_figures_are_files_that_stand_by_themselves(item):
    root = ElementTree.fromstring(figure_file(item))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = "".join(root.itertext())
    assert ("lambda" in texts) if item["kind"] == "chart" else ("a <script>" in texts)
    assert float(root.get("width")) > 0 and root.find("{*}style") is not None


def test_a_figure_that_lacks_everything():
    gone = {"kind": "pictures", "cards": [], "name": "fig8", "title": "t"}
    assert figure_file(gone) == ""
    lines = [{"title": "pictovoc", "points": [{"x": 1.0, **LACKING}]}]
    ElementTree.fromstring(chart_file([{"title": "t", "x_label": "x", "series": lines}]))
    ElementTree.fromstring(card_file([{"title": "no picture", "lines": ["text"] * 3}] * 5))
