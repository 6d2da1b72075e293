"""Captions: vocabularies, readers of caption files, and the noun filter that labels captions."""

from t2ipal.captions.filtering import FilterResult, filter_captions
from t2ipal.captions.nouns import NounFilter, Verdict
from t2ipal.captions.readers import read_captions
from t2ipal.captions.vocabulary import PHOTO_PROMPT, Vocabulary, load_vocabulary, photo_prompts
from t2ipal.store import Caption

__all__ = [
    "PHOTO_PROMPT",
    "Caption",
    "FilterResult",
    "NounFilter",
    "Verdict",
    "Vocabulary",
    "filter_captions",
    "load_vocabulary",
    "photo_prompts",
    "read_captions",
]
