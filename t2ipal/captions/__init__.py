"""Captions: vocabularies, readers of caption files, and the noun filter that labels captions."""

from t2ipal.captions.filtering import (
    FilterResult,
    LabelledCaption,
    RejectedCaption,
    filter_captions,
)
from t2ipal.captions.nouns import NounFilter, Verdict
from t2ipal.captions.readers import Caption, read_captions
from t2ipal.captions.vocabulary import Vocabulary, load_vocabulary

__all__ = [
    "Caption",
    "FilterResult",
    "LabelledCaption",
    "NounFilter",
    "RejectedCaption",
    "Verdict",
    "Vocabulary",
    "filter_captions",
    "load_vocabulary",
    "read_captions",
]
