"""Captions of test images: nine of ten images of MS-COCO's val2014 are in train2017.

Owns which image a caption is of, as data sets name it, and whether that is one of given images.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from t2ipal.captions.sources import read_file
from t2ipal.config import fingerprint, parse_json
from t2ipal.places import local_path

LEAK = "of a test image"
UNKNOWN = "no image named, it may be of a test image"
"""Reasons of captions that are left out."""
Mode = Literal["clean", "ancestor"]
Image = int | str
_COCO_FILE = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d+)", re.ASCII)
_SUFFIX = re.compile(r"\.(?:jpe?g|png|webp|gif|bmp)(?:#\d+)?$", re.IGNORECASE)


@dataclass(frozen=True)
class TestImages:
    """Images whose captions must not be trained on."""

    __test__ = False  # it is no test of pytest's
    images: frozenset[Image]
    mode: Mode
    """clean: their captions are left out; ancestor: they are kept and counted, as TaI-DPT has
    them."""
    files: tuple[str, ...]
    """Names of the files that list them."""

    def shows(self, image: Any) -> bool | None:
        """Whether it is one of them; None where no image is named."""
        known = image_of(image)
        return None if known is None else known in self.images

    def reason(self, shown: bool | None) -> str:
        """Why a caption is left out; "" where it is kept.

        Args:
            shown: what `shows` says of its image.
        """
        if self.mode == "ancestor" or shown is False:
            return ""
        return LEAK if shown else UNKNOWN

    def facts(self) -> dict[str, Any]:
        """What a run keeps of them."""
        return {
            "mode": self.mode,
            "files": list(self.files),
            "num_images": len(self.images),
            "images": fingerprint(sorted(map(str, self.images))),
        }


def read_test_images(
    uris: Sequence[str], mode: Mode, endpoint_url: str | None = None
) -> TestImages | None:
    """The images of files such as instances_val2014.json; None where there is no file.

    Args:
        uris: of json files with a list "images" as MS-COCO's have it (instances, captions,
            image_info), or with a list of ids or names of files.
        mode: what becomes of their captions.
        endpoint_url: server of an S3 bucket that is not on AWS.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file of another form.
    """
    images: set[Image] = set()
    for uri in uris:
        place = uri if uri.startswith("s3://") else local_path(uri)
        try:
            content = parse_json(read_file(place, endpoint_url))
        except ValueError as error:
            raise ValueError(f"{uri} is no valid JSON: {error}.") from error
        listed = content.get("images") if isinstance(content, dict) else content
        if not isinstance(listed, list) or not listed:
            raise ValueError(
                f'{uri} must hold a list "images" as MS-COCO\'s json does, or a list of ids.'
            )
        for at, entry in enumerate(listed):
            image = image_of(entry.get("id") if isinstance(entry, dict) else entry)
            if image is None:
                raise ValueError(f"{uri}: image {at} must have an id, got {str(entry)[:60]}.")
            images.add(image)
    names = tuple(sorted(PurePosixPath(uri).name for uri in uris))
    return TestImages(frozenset(images), mode, names) if uris else None


def image_of(value: Any) -> Image | None:
    """One id for an image: 9, "9", COCO_val2014_000000000009.jpg; None where there is none."""
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    if isinstance(value, int):
        return value
    name = _SUFFIX.sub("", PurePosixPath(value.strip()).name)
    number = _COCO_FILE.fullmatch(name.removesuffix(".0"))
    return int(number[1]) if number else name or None
