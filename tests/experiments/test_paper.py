import dataclasses

import pytest

from t2ipal.config import override
from t2ipal.evaluation.published import PUBLISHED
from t2ipal.evaluation.test_sets import DATA_SETS
from t2ipal.experiments.paper import BEYOND, ITEMS, choose_items
from t2ipal.experiments.points import Points, told
from t2ipal.experiments.rows import At, Figure, System, Table, Told, systems_of
from t2ipal.experiments.sources import Labels
from t2ipal.training.recipes import METHODS, recipe

WORLD = Points(("pictovoc", "pictovoc_shifted", "pictovoc_night"))
REAL = Points(("coco2014",), is_world=False)
NAMES = ("a", "b", "c")


@pytest.mark.parametrize("points", [WORLD, REAL], ids=["world", "real"])
@pytest.mark.parametrize("name", [*ITEMS, *BEYOND])
def test_every_item_asks_for_what_there_is(name, points):
    (item,) = choose_items([name], points)
    assert item.name == name
    for system in systems_of(item):
        for part in system.systems():
            start = recipe(part.method, "pictovoc", NAMES, NAMES)
            override(start, dict(part.changes))  # every option is there, and takes its value
            from_labels = METHODS[part.method].learns_from == "labelled images"
            assert isinstance(part.source, Labels) or not from_labels
    if isinstance(item, Table):
        for row in item.rows:
            assert len(row.cells) == len(item.columns), row.title
            for cell in row.cells:
                if isinstance(cell, At):
                    assert cell.test_set.partition("#")[0] in DATA_SETS


def test_the_items_are_the_papers():
    tables = [f"table{n}" for n in range(1, 15)]
    assert [*ITEMS] == [*tables, *(f"fig{n}" for n in range(3, 11))]
    assert [item.name for item in choose_items(["fig9", "table1"], WORLD)] == ["table1", "fig9"]
    names = [item.name for item in choose_items(["plus", "all"], WORLD)]
    assert names == [*ITEMS, "plus"]
    with pytest.raises(ValueError, match="Unknown item 'table15'"):
        choose_items(["table15"], WORLD)


def test_published_numbers_stand_in_the_column_of_their_backbone():
    (table,) = choose_items(["table1"], WORLD)
    (row,) = [row for row in table.rows if row.title == "T2I-PAL"]
    shown = {
        head: cell.value
        for head, cell in zip(table.columns, row.cells, strict=True)
        if isinstance(cell, Told)
    }
    assert shown["VOC07 RN50 (paper)"] == 88.8 and shown["COCO RN101 (paper)"] == 71.4
    assert all(
        told.backbone in head
        for head, told in zip(table.columns, row.cells)
        if isinstance(told, Told)
    )
    assert told("zero_shot", "T2I-PAL", "voc2007", "ViT-B/16") is None


def test_seeds_where_a_seed_changes_something():
    assert len(System("t2ipal").fits(range(3))) == 3
    assert len(System("zsclip").fits(range(3))) == 1
    assert len(System("tip_adapter", Labels(shots=2)).fits(range(3))) == 3
    episodes = System("coop", Labels(shots=1, episode=0))
    assert [fit.source.episode for fit in episodes.fits(range(6))] == [*range(10)]
    assert [fit.source.episode for fit in episodes.fits(range(2))] == [*range(4)]


def test_a_line_has_every_point():
    (figure,) = choose_items(["fig3"], dataclasses.replace(WORLD, image_weights=(0, 0.5, 1)))
    assert isinstance(figure, Figure)
    weights, counts = figure.panels
    assert [x for x, _ in weights.series[0].points] == [0, 0.5, 1]
    assert [s.title for s in weights.series] == [*WORLD.test_sets]
    assert [x for x, _ in counts.series[0].points] == [*WORLD.image_counts]


def test_every_published_number_stands_in_a_table():
    items = choose_items(["all"], WORLD)
    cells = [
        cell for item in items if isinstance(item, Table) for row in item.rows for cell in row.cells
    ]
    shown = {(cell.value, cell.backbone, cell.source) for cell in cells if isinstance(cell, Told)}
    elsewhere = {"modality_gap"}  # a figure's card
    for each in PUBLISHED:
        named = (each.mAP, each.backbone, each.source)
        known = each.setting in elsewhere or each.backbone == "mean of nine CLIPs"
        assert named in shown or known, each
