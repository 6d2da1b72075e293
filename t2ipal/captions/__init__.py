"""Captions: vocabularies, readers of caption files, and the noun filter that labels captions."""

from t2ipal.captions.filtering import FilterResult, class_remarks, filter_captions
from t2ipal.captions.leaks import TestImages, read_test_images
from t2ipal.captions.nouns import NounFilter, Verdict
from t2ipal.captions.readers import read_captions
from t2ipal.captions.sources import Tell
from t2ipal.captions.tokens import CONTEXT_TOKENS, MAX_TOKENS, fits
from t2ipal.captions.vocabulary import PHOTO_PROMPT, Vocabulary, photo_prompts
from t2ipal.captions.vocabulary_files import is_vocabulary_file, load_vocabulary
from t2ipal.store import Caption

__all__ = [
    "CONTEXT_TOKENS",
    "MAX_TOKENS",
    "PHOTO_PROMPT",
    "Caption",
    "FilterResult",
    "NounFilter",
    "Tell",
    "TestImages",
    "Verdict",
    "Vocabulary",
    "class_remarks",
    "filter_captions",
    "fits",
    "is_vocabulary_file",
    "load_vocabulary",
    "photo_prompts",
    "read_captions",
    "read_test_images",
]
