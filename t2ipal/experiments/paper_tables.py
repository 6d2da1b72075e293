"""The paper's tables: which systems each compares, on what, and what it claims of them."""

from collections.abc import Sequence
from dataclasses import replace

from t2ipal.evaluation.ensembles import FEW_SHOT_RATIO, PARTIAL_LABELS_RATIO
from t2ipal.experiments.points import (
    CONCEPT,
    SHORT,
    TAI_DPT,
    TOLD_ON,
    WITHOUT_LABELS,
    ZERO_SHOT,
    Points,
    beside,
    few_shot,
    heads_beside,
    line_row,
    mixed,
    told,
    told_rows,
)
from t2ipal.experiments.rows import At, Cell, Claim, Figure, Row, System, Table
from t2ipal.experiments.sources import Captions, Labels

DENSE = ("TagCLIP", "TagCLIP + SPARC", "BAC-GCN", "PIAA, SC-CLIP", "PIAA, ITACLIP")
"""Systems of a ViT, published only."""
BACKBONES = ("RN50", "RN101", "ViT-B/16")
"""Of published zero-shot numbers."""
ZERO_SHOT_ROWS = {
    "ZSCLIP": "ZSCLIP",
    "ZSCLIP, 80 templates": "",
    "ZSCLIP + local": "ZSCLIP + local",
    "ZSCLIP, normalized (SPARC)": "SPARC",
    "TaI": "TaI",
    "TaI-DPT": "TaI-DPT",
    "TaI-DPT, all of its recipe": "",
    "TaI-DPT, partly normalized": "",
    "PVP, first stage": "",
    "PVP": "PVP",
    "Class concept": "",
    "ZSCLIP + class concept": "Class concept + ZSCLIP",
    "TaI-DPT + class concept": "Class concept + TaI-DPT",
    "T2I-PAL": "T2I-PAL",
    "T2I-PAL, partly normalized": "",
}
"""Titles of table 1 -> as what they were published; "" where not."""
DUALCOOP = System("dualcoop", Labels())
PARTIAL = (
    "SSGRL", "GCN-ML", "Par.BCE", "SARB", "DualCoOp", "DualCoOp (rerun)", "DualCoOp + TaI-DPT",
    "DualCoOp + T2I-PAL",
)  # fmt: skip


def table1(points: Points) -> Table:
    """Zero-shot."""
    ours = points.t2ipal
    ours_partly = replace(ours, normalization="partial")
    theirs_partly = replace(TAI_DPT, normalization="partial")
    more = {
        "ZSCLIP, normalized (SPARC)": replace(ZERO_SHOT, normalization="full"),
        "TaI-DPT, partly normalized": theirs_partly,
        "T2I-PAL": ours,
        "T2I-PAL, partly normalized": ours_partly,
    }
    rows = [(title, (WITHOUT_LABELS | more)[title], name) for title, name in ZERO_SHOT_ROWS.items()]
    shown = [
        Row(title, (*points.all(system), *_zero_shot(name, BACKBONES)))
        for title, system, name in rows
    ]
    nothing = (None,) * len(points.test_sets)
    shown += [Row(name, (*nothing, *_zero_shot(name, BACKBONES))) for name in DENSE]
    heads = [f"{SHORT[on]} {b} (paper)" for b in BACKBONES for on in TOLD_ON]
    return Table(
        "table1", "Zero-shot recognition", (*points.test_sets, *heads), tuple(shown),
        ("The paper's headline compares RN101 with RN50. Compare columns of one backbone only.",),
        (
            points.higher("T2I-PAL over TaI-DPT", ours, TAI_DPT),
            points.higher("TaI-DPT over zero-shot CLIP", TAI_DPT, ZERO_SHOT),
            points.higher(
                "beyond the paper: T2I-PAL over TaI-DPT with both partly normalized",
                ours_partly, theirs_partly,
            ),
        ),
    )  # fmt: skip


def _zero_shot(method: str, backbones: Sequence[str]) -> tuple[Cell, ...]:
    return tuple(told("zero_shot", method, on, b) for b in backbones for on in TOLD_ON)


def _portions(points: Points, base: System) -> list[System]:
    return [base.changed(method__known_labels=portion) for portion in points.portions]


def _partial_rows(points: Points, partners: Sequence[tuple[str, System]]) -> list[Row]:
    known, test_set = _portions(points, DUALCOOP), points.test_sets[0]
    rows = [line_row("DualCoOp", known, test_set)]
    for title, partner in partners:
        both = [mixed(each, partner, PARTIAL_LABELS_RATIO) for each in known]
        rows.append(line_row(f"DualCoOp + {title}", both, test_set))
    return rows


def _percents(points: Points) -> tuple[str, ...]:
    return (*(f"{portion:.0%}" for portion in points.portions), "mean")


def table2(points: Points) -> Table:
    """Partial labels."""
    rows = _partial_rows(points, [("TaI-DPT", TAI_DPT), ("T2I-PAL", points.t2ipal)])
    others = [
        ("DualCoOp + class concept", replace(DUALCOOP, partner=CONCEPT)),
        ("DualCoOp, original", System("dualcoop_original", Labels(), backbone="regions")),
        ("Positive CoOp", System("positive_coop", Labels())),
    ]
    for title, system in others:
        rows.append(line_row(title, _portions(points, system), points.test_sets[0]))
    percents = [round(100 * portion) for portion in points.portions]
    rows += told_rows("partial_labels", PARTIAL, TOLD_ON, percents)
    ends = [
        (p, DUALCOOP.changed(method__known_labels=p))
        for p in dict.fromkeys((points.portions[0], points.portions[-1]))
    ]
    return Table(
        "table2", f"Partial labels, {points.test_sets[0]}", _percents(points), tuple(rows),
        (
            f"Mixtures give DualCoOp {PARTIAL_LABELS_RATIO:g}. Their scaling uses the test set as "
            "a whole.",
        ),
        tuple(
            Claim(
                f"T2I-PAL complements DualCoOp at {p:.0%} of the labels", "higher",
                (mixed(known, points.t2ipal, PARTIAL_LABELS_RATIO), known), points.test_sets[:1],
            )
            for p, known in ends
        ),
    )  # fmt: skip


def table3(points: Points) -> Table:
    """Novel classes."""
    test_set = f"{points.test_sets[0]}#novel"
    amounts = (0, *points.episode_shots)
    none = (None,) * len(points.episode_shots)
    zero = [("ZSCLIP", ZERO_SHOT), ("TaI-DPT", TAI_DPT), ("T2I-PAL", points.t2ipal)]
    rows = [Row(title, (At(system, test_set), *none)) for title, system in zero]
    few = [("CoOp", "coop"), ("Tip-Adapter", "tip_adapter"), ("Tip-Adapter-F", "tip_adapter_f")]
    for title, method in few:
        systems = [few_shot(method, Labels(shots, episode=0)) for shots in points.episode_shots]
        rows.append(Row(title, (None, *(At(system, test_set) for system in systems))))
    methods = ("LaSO", "ML-FSL", "TaI-DPT", "T2I-PAL")
    rows += told_rows("novel_classes", methods, ("coco2014",), amounts, mean=False)
    return Table(
        "table3", "Novel classes", tuple(f"{n}-shot" for n in amounts), tuple(rows),
        (
            "Test images are those that show a novel class. Zero-shot systems see no labelled "
            "image. Few-shot systems see the novel classes' images of an episode, no others: the "
            "mean of ten episodes, of four with --quick.",
            _cache_weights(points),
        ),
        (
            Claim(
                "T2I-PAL over TaI-DPT on novel classes", "higher", (points.t2ipal, TAI_DPT),
                (test_set,),
            ),
        ),
    )  # fmt: skip


def _cache_weights(points: Points) -> str:
    """Where Tip-Adapter's are from."""
    weights = "Tip-Adapter's weight and sharpness, alpha and beta, are"
    if points.is_world:
        return f"{weights} those of the best mAP on validation scenes, for each draw of shots."
    return f"{weights} its defaults: no validation images are there to choose them on."


def _shots_row(points: Points, title: str, method: str, partner: System | None = None) -> Row:
    systems = [few_shot(method, Labels(shots)) for shots in points.shots]
    if partner is not None:
        systems = [mixed(system, partner, FEW_SHOT_RATIO) for system in systems]
    return line_row(title, systems, points.test_sets[0])


def _shots(points: Points) -> tuple[str, ...]:
    return (*(f"{shots}-shot" for shots in points.shots), "mean")


def table4(points: Points) -> Table:
    """Few-shot of all classes."""
    test_set, most = points.test_sets[:1], points.shots[-1]
    coop = few_shot("coop", Labels(most))
    rows = [
        _shots_row(points, "CoOp", "coop"),
        _shots_row(points, "Tip-Adapter", "tip_adapter"),
        _shots_row(points, "Tip-Adapter-F", "tip_adapter_f"),
        _shots_row(points, "CoOp + TaI-DPT", "coop", TAI_DPT),
        _shots_row(points, "CoOp + T2I-PAL, written captions", "coop", points.with_written),
        _shots_row(points, "CoOp + T2I-PAL", "coop", points.t2ipal),
        *told_rows("few_shot", ("CoOp", "CoOp + TaI-DPT", "CoOp + T2I-PAL"), TOLD_ON, points.shots),
    ]
    return Table(
        "table4", f"Few-shot recognition, {points.test_sets[0]}", _shots(points), tuple(rows),
        (
            f"Mixtures give CoOp {FEW_SHOT_RATIO:g}. Their scaling uses the test set as a whole.",
            _cache_weights(points),
        ),
        (
            Claim(
                f"T2I-PAL complements CoOp at {most} shots", "higher",
                (mixed(coop, points.t2ipal, FEW_SHOT_RATIO), coop), test_set,
            ),
            Claim(
                f"T2I-PAL without a label over CoOp + TaI-DPT at {most} shots", "higher",
                (points.t2ipal, mixed(coop, TAI_DPT, FEW_SHOT_RATIO)), test_set,
            ),
        ),
    )  # fmt: skip


def table5(points: Points) -> Table:
    """Single labels and attributes."""
    asked = [("one object, accuracy", "pictovoc_single", Captions())]
    asked += [("attributes, mAP", "pictovoc_attributes", Captions(attributes=True))]
    if not points.is_world:
        asked = [(name, name, Captions()) for name in points.test_sets]
    compared = [("ZSCLIP", ZERO_SHOT), ("TaI-DPT", TAI_DPT), ("T2I-PAL", points.t2ipal)]
    rows = [
        Row(title, tuple(At(replace(system, source=s), on) for _, on, s in asked))
        for title, system in compared
    ]
    claims = [
        Claim(
            f"T2I-PAL over TaI-DPT, {name}", "higher",
            (replace(points.t2ipal, source=source), replace(TAI_DPT, source=source)), (on,),
        )
        for name, on, source in asked
    ]  # fmt: skip
    heads = tuple(name for name, _, _ in asked)
    title = "Single-label images and attributes"
    return Table("table5", title, heads, tuple(rows), (), tuple(claims))


def table6(points: Points) -> Figure:
    """The modality gap, which `t2ipal.experiments.drawings` has of kept recognizers."""
    systems = (TAI_DPT, points.t2ipal)
    return Figure("table6", "Modality gap", pictures="modality_gap", systems=systems)


def table7(points: Points) -> Table:
    """Where the adapter acts."""
    none = replace(points.t2ipal, method="t2ipal_no_adapter")
    whole = replace(points.t2ipal, method="t2ipal_global_adapter")
    rows = points.rows(
        ("without adapter", none),
        ("adapter on the global score", whole),
        ("adapter on the local score (T2I-PAL)", points.t2ipal),
    )
    return Table(
        "table7", "Where the adapter acts", points.test_sets, rows, (),
        (
            points.higher("adapter on the local score over the global one", points.t2ipal, whole),
            points.higher("adapter on the global score over none", whole, none),
        ),
    )  # fmt: skip


def table8(points: Points) -> Table:
    """Captions, synthetic and original images."""
    images = replace(points.t2ipal, method="t2ipal_images_only")
    three = replace(points.any_images, source=Captions(originals="beside"))
    rows = points.rows(
        ("captions (TaI-DPT)", TAI_DPT),
        ("synthetic images", images),
        ("synthetic images and captions (T2I-PAL)", points.t2ipal),
        ("all three", three),
    )
    return Table(
        "table8", "Captions, synthetic images, original images", heads_beside(points),
        beside(rows, ("TaI-DPT", "T2I-PAL, images only", "T2I-PAL", "")),
        ("With all three, a caption's image is drawn from its synthetic ones and the original.",),
        (
            points.higher("synthetic images alone over captions alone", images, TAI_DPT),
            points.higher("captions beside images over images alone", points.t2ipal, images),
            points.equal("original images add little", three, points.t2ipal),
        ),
    )  # fmt: skip


def table9(points: Points) -> Table:
    """Original images in place of synthetic ones."""

    def replaced(share: float) -> System:
        return replace(points.any_images, source=Captions(originals="instead", share=share))

    rows = points.rows(
        ("one synthetic image a caption", points.with_images(1)),
        ("40% original", replaced(0.4)),
        ("80% original", replaced(0.8)),
        ("original images alone", replaced(1.0)),
        (f"{points.main_images} synthetic images a caption", points.t2ipal),
    )
    words = f"{points.main_images} synthetic images over original ones"
    return Table(
        "table9", "Original images in place of synthetic ones", heads_beside(points),
        beside(rows, ("T2I-PAL, one image", "", "", "", "T2I-PAL")),
        (
            "Captions whose images are not replaced keep all their synthetic ones. Each seed "
            "replaces those of other captions.",
        ),
        (
            points.equal(
                "one synthetic image is on par with the original one", points.with_images(1),
                replaced(1.0),
            ),
            points.higher(words, points.t2ipal, replaced(1.0)),
        ),
    )  # fmt: skip


def table10(points: Points) -> Table:
    """Additional captions, zero-shot."""
    more = points.with_more_captions
    rows = points.rows(("T2I-PAL", points.t2ipal), ("with as many written captions beside", more))
    claim = points.higher("additional written captions help", more, points.t2ipal)
    note = "Twice the captions for as many epochs are twice the steps."
    return Table("table10", "Additional captions", points.test_sets, rows, (note,), (claim,))


def table11(points: Points) -> Table:
    """Additional captions, partial labels."""
    partners = [("T2I-PAL", points.t2ipal)]
    partners += [("T2I-PAL, additional captions", points.with_more_captions)]
    title = f"Additional captions with partial labels, {points.test_sets[0]}"
    return Table("table11", title, _percents(points), tuple(_partial_rows(points, partners)))


def table12(points: Points) -> Table:
    """Visual encoders."""
    compared = [("ZSCLIP", ZERO_SHOT), ("TaI-DPT", TAI_DPT), ("T2I-PAL", points.t2ipal)]
    rows = [
        Row(f"{title}, {words}", points.all(replace(system, backbone=name)))
        for name, words in zip(("main", "other"), points.encoders)
        for title, system in compared
    ]
    heads = [f"{SHORT[on]} (paper)" for on in TOLD_ON]
    rows = [Row(row.title, (*row.cells, None, None, None)) for row in rows]
    for backbone in ("RN50", "RN101"):
        for method in ("TaI-DPT", "T2I-PAL"):
            cells = (*(None,) * len(points.test_sets), *_zero_shot(method, (backbone,)))
            rows.append(Row(f"{method}, {backbone}", cells))
    ours, theirs = (replace(each, backbone="other") for each in (points.t2ipal, TAI_DPT))
    main, other = points.encoders
    return Table(
        "table12", "Visual encoders", (*points.test_sets, *heads), tuple(rows), (),
        (
            points.higher(f"{other} helps T2I-PAL over {main}", ours, points.t2ipal),
            points.equal(f"{other} changes TaI-DPT little", theirs, TAI_DPT),
            points.higher(f"T2I-PAL over TaI-DPT with {other}", ours, theirs),
        ),
    )  # fmt: skip


def table13(points: Points) -> Table:
    """Additional captions, few-shot."""
    title, more = "CoOp + T2I-PAL", points.with_more_captions
    rows = (
        _shots_row(points, title, "coop", points.t2ipal),
        _shots_row(points, f"{title}, additional captions", "coop", more),
    )
    head = f"Additional captions, few-shot, {points.test_sets[0]}"
    return Table("table13", head, _shots(points), rows)


def table14(points: Points) -> Table:
    """Equations 3 and 6 in other forms."""

    def other(name: str) -> System:
        return replace(points.t2ipal, method=f"t2ipal_{name}")

    adapter = System("tai_dpt_adapter")
    ours, mean, most = points.t2ipal, other("mean"), other("max")
    eq8, eq9 = other("learnable_sharpness"), other("learnable_residual")
    rows = points.rows(
        ("T2I-PAL, mean", mean),
        ("T2I-PAL, max", most),
        ("TaI-DPT", TAI_DPT),
        ("TaI-DPT + adapter", adapter),
        ("T2I-PAL", ours),
        ("T2I-PAL, learnable sharpness (eq. 8)", eq8),
        ("T2I-PAL, learnable residual ratio (eq. 9)", eq9),
    )
    return Table(
        "table14", "Other forms of equations 3 and 6", points.test_sets, rows, (),
        (
            points.higher("weighted locations over their mean", ours, mean),
            points.higher("weighted locations over the best one", ours, most),
            points.higher("TaI-DPT with the adapter over TaI-DPT", adapter, TAI_DPT),
            points.higher("T2I-PAL over TaI-DPT with the adapter", ours, adapter),
            points.higher("learnable sharpness over a fixed one (eq. 8)", eq8, ours),
            points.higher("learnable residual ratio over a fixed one (eq. 9)", eq9, ours),
        ),
    )  # fmt: skip
