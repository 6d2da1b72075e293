"""How many tokens of CLIP a text has: a text encoder reads the first 75 and nothing behind them."""

from functools import cache
from typing import Any

MAX_TOKENS = 75
"""That CLIP's text encoders read beside their start and end."""
CONTEXT_TOKENS = 16
"""Places that a learned context takes before a class's name (the paper's M)."""


def fits(text: str, most: int = MAX_TOKENS) -> bool:
    """Whether a text has at most so many tokens. Hashtags, emojis and numbers have many each."""
    # A token is a byte at least. Counting loads open_clip, which few captions are worth.
    return len(text.encode()) <= most or count_tokens(text) <= most


def count_tokens(text: str) -> int:
    """Tokens of a text in the vocabulary of OpenAI's CLIP."""
    return len(_tokenizer().encode(text))


@cache
def _tokenizer() -> Any:
    from t2ipal.torchvision_repair import repair_torchvision  # loads torch

    repair_torchvision()
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()
