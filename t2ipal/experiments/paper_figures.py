"""The paper's figures with numbers or pictures; figures 1 and 2 are drawings of the method."""

from collections.abc import Sequence
from dataclasses import replace

from t2ipal.experiments.points import FEWER_STEPS, TAI_DPT, WRITTEN, Points, beside, heads_beside
from t2ipal.experiments.rows import At, Claim, Figure, Panel, Series, System, Table
from t2ipal.experiments.sources import Captions

Line = Sequence[tuple[float, System]]


def _panel(points: Points, title: str, x_label: str, line: Line) -> Panel:
    series = [
        Series(name, tuple((float(x), At(system, name)) for x, system in line))
        for name in points.test_sets
    ]
    return Panel(title, x_label, tuple(series))


def _interior(points: Points, words: str, line: Line) -> Claim:
    return Claim(words, "interior", tuple(system for _, system in line), points.test_sets)


def fig3(points: Points) -> Figure:
    """Share of the images' loss; number of images."""
    weights = [(w, points.t2ipal.changed(method__image_weight=w)) for w in points.image_weights]
    counts = [(n, points.with_images(n)) for n in points.image_counts]
    few, most = counts[0][1], counts[-1][1]
    words = f"beyond {points.main_images} images a caption nothing more is gained"
    return Figure(
        "fig3", "Balance of images and captions; number of images",
        (
            _panel(points, "share of the images' loss", "lambda", weights),
            _panel(points, "number of images", "synthetic images a caption", counts),
        ),
        claims=(
            _interior(points, "the best lambda is neither 0 nor 1", weights),
            points.higher(
                f"{points.main_images} images a caption over one", points.t2ipal, few
            ),
            points.equal(words, most, points.t2ipal),
            points.higher("one image a caption over TaI-DPT", few, TAI_DPT),
        ),
    )  # fmt: skip


def fig4(points: Points) -> Table:
    """Quality of captions and of images."""
    few = points.sweep_images
    same = replace(points.with_images(few), source=Captions(same_images=True))
    poorer = replace(same, source=Captions((FEWER_STEPS,), same_images=True))
    rows = points.rows(
        ("T2I-PAL", points.t2ipal),
        ("written captions", points.with_written),
        (f"{few} images a caption", same),
        (f"{few} images a caption in fewer steps", poorer),
    )
    return Table(
        "fig4", "Quality of captions and of images", heads_beside(points),
        beside(rows, ("T2I-PAL", "T2I-PAL, LLM captions", "", "")),
        (
            "The paper compares versions of Stable Diffusion; here one draws in fewer steps. "
            f"With {few} images a caption, all seeds have the same ones.",
        ),
        (
            points.equal("written captions are as good", points.with_written, points.t2ipal),
            points.higher("better images teach better", same, poorer),
        ),
    )  # fmt: skip


def fig5(points: Points) -> Figure:
    """Written captions."""
    sources = Captions(), Captions((WRITTEN,))
    title = "Captions that nobody wrote"
    return Figure("fig5", title, pictures="written_captions", sources=sources)


def fig6(points: Points) -> Figure:
    """Guidance."""
    plain, lines = points.with_images(points.sweep_images), {}
    sets = {scale: (points.guidance_set(scale),) for scale in points.guidance_scales}
    for title, method in (("T2I-PAL", "t2ipal"), ("images only", "t2ipal_images_only")):
        lines[title] = [
            (scale, replace(plain, method=method, source=Captions(names, same_images=True)))
            for scale, names in sets.items()
        ]
    return Figure(
        "fig6", "Classifier-free guidance",
        tuple(_panel(points, title, "guidance scale", line) for title, line in lines.items()),
        notes=(
            f"{points.sweep_images} images a caption of each scale, the same ones for all seeds.",
        ),
        claims=tuple(
            _interior(points, f"too much or too little guidance hurts, {title}", line)
            for title, line in lines.items()
        ),
    )  # fmt: skip


def fig7(points: Points) -> Figure:
    """Who is right where."""
    images = replace(points.t2ipal, method="t2ipal_images_only")
    title, systems = "What captions and images add to each other", (TAI_DPT, images, points.t2ipal)
    return Figure("fig7", title, pictures="complementary", systems=systems)


def fig8(points: Points) -> Figure:
    """Synthetic and original images."""
    title, sources = "Captions, original and synthetic images", (Captions(originals="beside"),)
    return Figure("fig8", title, pictures="pairs", sources=sources)


def fig9(points: Points) -> Figure:
    """alpha and beta."""
    ratios = [(a, points.t2ipal.changed(method__residual_ratio=a)) for a in points.residual_ratios]
    sharp = [(b, points.t2ipal.changed(method__sharpness=b)) for b in points.sharpnesses]
    return Figure(
        "fig9", "Residual ratio and sharpness",
        (
            _panel(points, "residual ratio", "alpha", ratios),
            _panel(points, "sharpness", "beta", sharp),
        ),
        claims=(
            _interior(points, "the best alpha lies inside", ratios),
            _interior(points, "the best beta lies inside", sharp),
        ),
    )  # fmt: skip


def fig10(points: Points) -> Figure:
    """Failures of the generator."""
    title = "Images that lack what their caption names"
    return Figure("fig10", title, pictures="failures", sources=(Captions(),))
