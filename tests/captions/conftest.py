from functools import cache

import pytest

from t2ipal.captions import NounFilter, load_vocabulary

_filter = cache(lambda vocabulary: NounFilter(load_vocabulary(vocabulary)))


@pytest.fixture(scope="session")
def named():
    """The names of the classes that a caption names, sorted and joined by commas."""

    def names(vocabulary: str, caption: str) -> str:
        noun_filter = _filter(vocabulary)
        class_names = noun_filter.vocabulary.class_names
        return ", ".join(sorted(class_names[index] for index in noun_filter(caption).labels))

    return names
