"""What is said of one photograph, and the columns of a table of such rows; loads no model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """One photograph, looked at."""

    file: str
    """Its key in the folder or bucket of photographs."""
    labels: tuple[str, ...]
    """Names of the classes with the highest scores, the highest first."""
    scores: tuple[float, ...]
    """Theirs; no probabilities."""
    width: int
    """In pixels, upright; 0 where it failed."""
    height: int
    status: str
    """`ok` or `failed`."""
    reason: str
    """Why it failed, else empty."""
    all_scores: tuple[float, ...] = ()
    """Of every class in the recognizer's order; empty where nobody asked, or it failed."""
    thumbnail: str = ""
    """The square that the recognizer saw, as a JPEG in base64; empty where nobody asked."""

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Prediction":
        """The prediction whose `asdict` went through JSON."""
        lists = {name: tuple(values[name]) for name in ("labels", "scores", "all_scores")}
        return Prediction(**{**values, **lists})

    def row(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Its values by the names of `columns`."""
        every = self.all_scores or (None,) * len(class_names)
        return {**asdict(self), **{f"score_{n}": s for n, s in zip(class_names, every)}}


def columns(class_names: Sequence[str], all_scores: bool) -> dict[str, Any]:
    """Names and kinds of the columns of a table of predictions."""
    kinds = {
        "file": "text", "labels": "texts", "scores": "numbers", "width": "count",
        "height": "count", "status": "text", "reason": "text",
    }  # fmt: skip
    return kinds | {f"score_{name}": "number" for name in class_names if all_scores}
