import pytest

from t2ipal.captions.tokens import MAX_TOKENS, _tokenizer, count_tokens, fits


@pytest.mark.parametrize(
    ("text", "count"),
    [("a dog", 2), ("123", 3), ("#instagood7", 3), ("a photo of a dog.", 6), ("", 0)],
)
def test_count(text, count):
    assert count_tokens(text) == count


def test_what_fits_is_what_is_not_cut():
    tokenize = _tokenizer()
    for text in ("dog " * 75, "dog " * 76, "#photooftheday " * 20, "\U0001f436" * 40, "7" * 76):
        ids = tokenize([text])[0]
        is_whole = count_tokens(text) == len(ids[ids > 0]) - 2  # start and end
        assert fits(text) == is_whole == (count_tokens(text) <= MAX_TOKENS)
