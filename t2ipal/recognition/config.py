"""What is asked of a recognizer on photographs, as plain values."""

from dataclasses import dataclass

from t2ipal.config import PositiveInt, check_fields


@dataclass(frozen=True)
class PredictionOptions:
    """What is said of each photograph."""

    top_k: PositiveInt = 3
    """Classes a photograph gets, those of the highest scores."""
    min_score: float | None = None
    """Leave out classes below this score, all of a photograph's if need be; None: none. Scores are
    no probabilities: look at some before you choose."""
    all_scores: bool = False
    """Also the score of every class, in columns `score_CLASS`."""
    batch_size: PositiveInt = 32
    """Photographs that the backbone sees at once."""

    def __post_init__(self) -> None:
        check_fields(self)
