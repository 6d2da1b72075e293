"""A contact sheet of predictions: photographs with their labels and scores, and what failed.

Keeps the first pictures and the first failures alone, however many photographs there are.
"""

from collections.abc import Iterable, Sequence

from t2ipal.recognition.rows import Prediction
from t2ipal.report.markup import Markup, element
from t2ipal.report.page import document


class ContactSheet:
    """Takes predictions as they come; then draws the page."""

    def __init__(self, max_images: int):
        """An empty one.

        Args:
            max_images: to show; as many failures are named.
        """
        self.max_images = max_images
        self.shown: list[Prediction] = []
        self.failed: list[Prediction] = []
        self.num_images = self.num_failed = 0

    def add(self, predictions: Iterable[Prediction]) -> None:
        """Counts them, and keeps those that are shown."""
        for prediction in predictions:
            kept = self.shown if prediction.status == "ok" else self.failed
            if len(kept) < self.max_images and (prediction.thumbnail or kept is self.failed):
                kept.append(prediction)
            self.num_images += 1
            self.num_failed += prediction.status == "failed"

    def render(self, images: str, recognizers: Sequence[str]) -> str:
        """The page as text: self-contained HTML without scripts.

        Args:
            images: where they are, for the heading.
            recognizers: that looked at them.
        """
        others = self.num_images - self.num_failed - len(self.shown)
        counts = [_count(self.num_images, "photograph")]
        if self.num_failed:
            counts.append(f"{self.num_failed:,} of them could not be read")
        if others:
            counts.append(f"the first {len(self.shown):,} are shown")
        scores = "mean scores of" if len(recognizers) > 1 else "scores of"
        subtitle = f"{'; '.join(counts)}. Labels and {scores} {', '.join(recognizers)}."
        sections = [self._pictures(), self._failures()]
        return document(f"Predictions for {images}", subtitle, element("main", sections))

    def _pictures(self) -> Markup | None:
        if not self.shown:
            return None
        lead = (
            "Each picture is the center square that the recognizer sees. A higher score means more "
            "likely; it is no probability."
        )
        return element(
            "section",
            element("p", lead, class_="lead"),
            element("div", map(_picture, self.shown), class_="contact"),
        )

    def _failures(self) -> Markup | None:
        if not self.failed:
            return None
        more = self.num_failed - len(self.failed)
        rows = [
            element("li", element("span", p.file), element("span", p.reason, class_="reason"))
            for p in self.failed
        ]
        return element(
            "section",
            element("h2", "Could not be read"),
            element("ul", rows, class_="failed"),
            element("p", f"And {more:,} more.", class_="file") if more else None,
            id="failed",
        )


def _picture(prediction: Prediction) -> Markup:
    labels = [
        element("li", element("span", name), element("span", f"{score:.3f}", class_="number"))
        for name, score in zip(prediction.labels, prediction.scores)
    ]
    named = ", ".join(prediction.labels) or "no label"
    image = element(
        "img",
        src=f"data:image/jpeg;base64,{prediction.thumbnail}",
        alt=f"{prediction.file}: {named}",
        decoding="async",
    )
    caption = element("ul", labels) if labels else element("p", "no label", class_="none")
    size = f"{prediction.width}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}{prediction.height}"
    file = element("p", f"{prediction.file} · {size}", class_="file")
    return element("figure", image, element("figcaption", caption, file))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
