"""What the tables and figures share: where lines are measured, the systems, published numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from t2ipal.evaluation.published import PUBLISHED
from t2ipal.experiments.rows import At, Cell, Claim, Mean, Row, System, Told
from t2ipal.experiments.sources import Captions, Labels
from t2ipal.methods.coop import coop_epochs

TOLD_ON = ("voc2007", "coco2014", "nuswide")
SHORT = {"voc2007": "VOC07", "coco2014": "COCO", "nuswide": "NUS"}
WRITTEN = "written"
"""Set of captions that a language model or a grammar wrote."""
FEWER_STEPS = "fewer-steps"
"""Set of images of the same captions by a poorer generator."""
RENDERED = "rendered"
"""Set of images of the same captions as a perfect generator would draw them: the world's own."""
ZERO_SHOT, LOCAL, TAI_DPT = System("zsclip"), System("zsclip_local"), System("tai_dpt")
CONCEPT = System("class_concept")
WITHOUT_LABELS = {
    "ZSCLIP": ZERO_SHOT,
    "ZSCLIP, 80 templates": System("zsclip_80"),
    "ZSCLIP + local": LOCAL,
    "TaI": System("tai"),
    "TaI-DPT": TAI_DPT,
    "TaI-DPT, all of its recipe": System("tai_dpt_ancestor"),
    "TaI-DPT + adapter": System("tai_dpt_adapter"),
    "PVP, first stage": System("pvp"),
    "PVP": System("pvp_text"),
    "Class concept": CONCEPT,
    "ZSCLIP + class concept": replace(ZERO_SHOT, partner=CONCEPT),
    "TaI-DPT + class concept": replace(TAI_DPT, partner=CONCEPT),
}
"""Title -> system that needs neither labels nor synthetic images."""


@dataclass(frozen=True)
class Points:
    """Where lines are measured, and on what."""

    test_sets: tuple[str, ...]
    """Side by side in most tables."""
    main_images: int = 6
    """Synthetic images a caption wherever a row says nothing else (paper: 6)."""
    image_counts: tuple[int, ...] = (1, 2, 4, 6, 10)
    guidance_scales: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    default_scale: float = 2.0
    num_captions: int = 1000
    """Of the main set, on the embedded world."""
    sweep_images: int = 2
    """Images a caption of the guidance scales."""
    portions: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Of known labels."""
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    episode_shots: tuple[int, ...] = (1, 5)
    image_weights: tuple[float, ...] = (0, 0.2, 0.4, 0.5, 0.6, 0.8, 1)
    residual_ratios: tuple[float, ...] = (0, 0.5, 1, 2, 4, 8)
    sharpnesses: tuple[float, ...] = (1, 2.5, 4, 5.5, 7, 10)
    is_world: bool = True
    """Whether these are the embedded world's."""
    encoders: tuple[str, str] = ("pictovoc", "pictovoc_deep")
    """Names of the main CLIP and of the other one."""

    @property
    def t2ipal(self) -> System:
        """The paper's method."""
        return self.with_images(self.main_images)

    @property
    def t2ipal_plus(self) -> System:
        """This project's own method, with as many images."""
        return System("t2ipal_plus").changed(training__images_per_caption=self.main_images)

    @property
    def any_images(self) -> System:
        """The paper's method with all images that a set has."""
        return System("t2ipal")

    def with_images(self, count: int) -> System:
        """The paper's method with the first so many images of each caption."""
        return self.any_images.changed(training__images_per_caption=count)

    @property
    def with_written(self) -> System:
        """The paper's method on written captions alone."""
        return replace(self.t2ipal, source=Captions((WRITTEN,)))

    @property
    def with_more_captions(self) -> System:
        """The paper's method on written captions beside its own."""
        return replace(self.t2ipal, source=Captions(("synthetic", WRITTEN)))

    def guidance_set(self, scale: float) -> str:
        """Name of the set of images of a guidance scale."""
        return "synthetic" if scale == self.default_scale else f"guidance-{scale:g}"

    def all(self, system: System) -> tuple[Cell, ...]:
        """On every test set."""
        return tuple(At(system, name) for name in self.test_sets)

    def rows(self, *rows: tuple[str, System]) -> tuple[Row, ...]:
        """Rows of systems on every test set."""
        return tuple(Row(title, self.all(system)) for title, system in rows)

    def higher(self, words: str, better: System, worse: System) -> Claim:
        """One system over another."""
        return Claim(words, "higher", (better, worse), self.test_sets)

    def equal(self, words: str, one: System, other: System) -> Claim:
        """Two systems on par."""
        return Claim(words, "equal", (one, other), self.test_sets)


def mixed(system: System, partner: System, ratio: float) -> System:
    """The partner with the scores of an image-trained system mixed in, whose share is `ratio`."""
    return replace(partner, partner=system, ratio=ratio)


def few_shot(method: str, source: Labels) -> System:
    """A system that learns from few images; CoOp's epochs go with their number."""
    system = System(method, source)
    if method != "coop" or source.shots is None:
        return system
    return system.changed(training__num_epochs=coop_epochs(source.shots))


def told(
    setting: str, method: str, on: str, backbone: str | None = None, amount: int | None = None
) -> Cell:
    """A published number, where there is one; `backbone` None: of whichever."""
    wanted = setting, method, on, amount
    for each in PUBLISHED:
        same = (each.setting, each.method, each.test_set, each.amount) == wanted
        if same and backbone in (None, each.backbone):
            return Told(each.mAP, each.backbone, each.source)
    return None


def line_row(title: str, systems: Sequence[System], test_set: str) -> Row:
    """A row of systems over amounts of labels, and their mean."""
    cells = tuple(At(system, test_set) for system in systems)
    return Row(title, (*cells, Mean(cells)))


def beside(rows: Sequence[Row], names: Sequence[str]) -> tuple[Row, ...]:
    """Rows with the published numbers of the same systems, of the paper's larger encoder.

    Args:
        rows: of the test sets.
        names: of each row's system as it is published; "" where it is not.
    """
    return tuple(
        Row(row.title, (*row.cells, *(told("zero_shot", name, on, "RN101") for on in TOLD_ON)))
        for row, name in zip(rows, names, strict=True)
    )


def heads_beside(points: Points) -> tuple[str, ...]:
    """Of `beside`."""
    return (*points.test_sets, *(f"{SHORT[on]} RN101 (paper)" for on in TOLD_ON))


def told_rows(
    setting: str,
    methods: Sequence[str],
    ons: Sequence[str],
    amounts: Sequence[int],
    mean: bool = True,
) -> list[Row]:
    """Rows of published numbers over amounts of labels, and their mean as it was published.

    Those without any number are left out.
    """
    rows = []
    for on in ons:
        for method in methods:
            cells = tuple(told(setting, method, on, amount=amount) for amount in amounts)
            cells += (told(f"{setting}_mean", method, on),) if mean else ()
            if any(cells):
                rows.append(Row(f"{method} (paper, {SHORT[on]})", cells))
    return rows
