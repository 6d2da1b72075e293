"""What the paper has not: T2I-PAL+ beside every system without labels, and what makes it; what
perfect images would teach, and what the images show.
"""

from collections.abc import Callable
from dataclasses import replace

from t2ipal.experiments.points import (
    FEWER_STEPS,
    RENDERED,
    WITHOUT_LABELS,
    Points,
)
from t2ipal.experiments.rows import At, Claim, Figure, Row, System, Table
from t2ipal.experiments.sources import Captions, Labels
from t2ipal.training.loop import TrainingConfig
from t2ipal.training.recipes import PICTOVOC_T2IPAL

FEW_CAPTIONS = 100
BEST_SHARPNESS = 2.5
"""The best of figure 9 on validation scenes."""
FORMS = {"": "none", ", normalized": "full", ", partly normalized": "partial"}
"""What is added to a title -> how each image's scores are normalized."""


def plus(points: Points) -> Table:
    """T2I-PAL+ beside every other system without labels, with normalization granted to each."""
    ours = points.t2ipal_plus
    others = {
        **WITHOUT_LABELS,
        "T2I-PAL, images only": replace(points.t2ipal, method="t2ipal_images_only"),
        "T2I-PAL": points.t2ipal,
        f"T2I-PAL, beta {BEST_SHARPNESS}": points.t2ipal.changed(method__sharpness=BEST_SHARPNESS),
    }
    columns = _columns(points)
    rows = [
        Row(f"{title}{form}", tuple(At(replace(system, normalization=kind), on) for on in columns))
        for title, system in {**others, "T2I-PAL+": ours}.items()
        for form, kind in FORMS.items()
    ]
    claims = [
        Claim(f"T2I-PAL+ over {title}{form}", "higher",
              (ours, replace(others[title], normalization=FORMS[form])), columns)
        for title, form in (
            ("T2I-PAL", ""), ("T2I-PAL", ", partly normalized"),
            (f"T2I-PAL, beta {BEST_SHARPNESS}", ", partly normalized"),
            ("TaI-DPT + class concept", ", partly normalized"), ("ZSCLIP", ", normalized"),
        )
    ]  # fmt: skip
    return Table(
        "plus", "T2I-PAL+ beside every system without labels", columns, tuple(rows),
        ("`pictovoc#novel`: images of novel classes, and these classes alone.",)
        if points.is_world else (),
        tuple(claims),
    )  # fmt: skip


def plus_parts(points: Points) -> Table:
    """What each part of T2I-PAL+ adds."""
    ours = points.t2ipal_plus
    whole = ours.changed(method__patches=False, method__prompt_weight=0.0,
                         method__zero_shot_weight=0.0)  # fmt: skip
    local = ours.changed(method__prompt_weight=0.0, method__zero_shot_weight=0.0)
    prompted = ours.changed(method__zero_shot_weight=0.0)
    rows = {
        "T2I-PAL": points.t2ipal,
        "discriminants of whole images": whole,
        "and of locations": local,
        "and prompts learned from captions": prompted,
        "and zero-shot CLIP: T2I-PAL+": ours,
        "without discriminants": ours.changed(method__discriminant_weight=0.0),
        "without locations": ours.changed(method__patches=False),
        "without learned prompts": ours.changed(method__prompt_weight=0.0),
        "without the adapter": ours.changed(method__adapter="none"),
        "prompts learned from captions and images": ours.changed(method__image_weight=0.6),
        "zero-shot CLIP with half of the weight": ours.changed(method__zero_shot_weight=0.5),
        "ten times the ridge": ours.changed(method__ridge=0.03),
        "a tenth of the ridge": ours.changed(method__ridge=0.0003),
        "whitened less (shrinkage 1)": ours.changed(method__shrinkage=1.0),
    }
    columns = _columns(points)
    shown = tuple(Row(name, tuple(At(each, on) for on in columns)) for name, each in rows.items())
    claims = (
        Claim("discriminants of locations help", "higher", (local, whole), columns),
        Claim("learned prompts help beside discriminants", "higher", (prompted, local), columns),
        Claim("zero-shot CLIP helps beside both", "higher", (ours, prompted), columns),
    )
    return Table("plus_parts", "What each part of T2I-PAL+ adds", columns, shown, (), claims)


def plus_settings(points: Points) -> Table:
    """Whether T2I-PAL+ holds with another encoder, fewer captions and fewer images."""
    settings = {
        points.encoders[1]: lambda each: replace(each, backbone="other"),
        f"{FEW_CAPTIONS} captions": lambda each: _few_captions(points, each, Captions()),
        **{
            f"{n} images a caption" if n > 1 else "1 image a caption": _images(n)
            for n in points.image_counts
        },
    }
    systems = {
        "T2I-PAL": points.t2ipal,
        "T2I-PAL, partly normalized": replace(points.t2ipal, normalization="partial"),
        "T2I-PAL+": points.t2ipal_plus,
    }
    columns = _columns(points)
    rows = tuple(
        Row(f"{title}, {name}", tuple(At(change(system), on) for on in columns))
        for name, change in settings.items()
        for title, system in systems.items()
    )
    claims = tuple(
        Claim(f"T2I-PAL+ over T2I-PAL partly normalized, {name}", "higher",
              (change(systems["T2I-PAL+"]), change(systems["T2I-PAL, partly normalized"])), columns)
        for name, change in settings.items()
    )  # fmt: skip
    title = "T2I-PAL+ with another encoder, fewer captions, fewer images"
    note = "Fewer captions are trained on for as many steps."
    return Table("plus_settings", title, columns, rows, (note,), claims)


def rendered(points: Points) -> Table:
    """What perfect images would teach, and what more images are worth beside few captions."""
    kinds = {kind: Captions((kind,)) for kind in ("synthetic", RENDERED)}
    methods = {
        "T2I-PAL": "t2ipal",
        "images only": "t2ipal_images_only",
        "adapter on the global score": "t2ipal_global_adapter",
        "no adapter": "t2ipal_no_adapter",
    }

    def system(kind: str, name: str) -> System:
        return replace(points.t2ipal, method=methods[name], source=kinds[kind])

    def few(kind: str, count: int) -> System:
        return _few_captions(points, points.with_images(count), kinds[kind])

    counts = (points.image_counts[0], points.main_images) if points.is_world else ()
    labelled = System("t2ipal_images_only", Labels()).changed(training__images_per_caption=1)
    rows = [(f"{kind} images: {name}", system(kind, name)) for kind in kinds for name in methods]
    rows.append(("labelled images in place of captions and images", labelled))
    rows += [
        (f"{FEW_CAPTIONS} captions, {count} {kind} of each", few(kind, count))
        for kind in kinds
        for count in counts
    ]
    claims = []
    for kind in kinds:
        ours = system(kind, "T2I-PAL")
        claims += [
            points.higher(f"{kind} images: T2I-PAL over {name}", ours, system(kind, name))
            for name in [*methods][1:]
        ]
        if counts:
            words = f"{FEW_CAPTIONS} captions: {counts[1]} {kind} images of each over {counts[0]}"
            claims.append(points.higher(words, few(kind, counts[1]), few(kind, counts[0])))
    best, usual = (system(kind, "T2I-PAL") for kind in (RENDERED, "synthetic"))
    claims.append(points.higher("rendered images over synthetic ones", best, usual))
    return Table(
        "rendered", "What perfect images would teach", points.test_sets, points.rows(*rows),
        ("Rendered images are the embedded world's own drawings of what a caption names.",
         "Fewer captions are trained on for as many steps."), tuple(claims),
    )  # fmt: skip


def shown(points: Points) -> Figure:
    """What the sets of images show."""
    scales = [points.guidance_set(scale) for scale in points.guidance_scales]
    sets = dict.fromkeys(["synthetic", *scales, FEWER_STEPS, RENDERED])
    sources = tuple(Captions((name,)) for name in sets)
    return Figure("shown", "What the images show", pictures="images_shown", sources=sources)


def _few_captions(points: Points, system: System, source: Captions) -> System:
    """For as many steps as with all captions."""
    times = max(points.num_captions / FEW_CAPTIONS, 1)
    return replace(system, source=replace(source, first=FEW_CAPTIONS)).changed(
        training__num_epochs=round(times * PICTOVOC_T2IPAL["training.num_epochs"]),
        training__warmup_epochs=round(times * TrainingConfig().warmup_epochs),
    )


def _images(count: int) -> Callable[[System], System]:
    return lambda each: each.changed(training__images_per_caption=count)


def _columns(points: Points) -> tuple[str, ...]:
    novel = (f"{points.test_sets[0]}#novel",) if points.is_world else ()
    return (*points.test_sets, *novel)
