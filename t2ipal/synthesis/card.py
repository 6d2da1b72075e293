"""The data-set card of a run: README.md beside the manifest, with a sheet of samples.

Written in the form that dataset hubs show: YAML head, Markdown body. The same run gives the same
bytes.
"""

import io
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from PIL import Image

from t2ipal.config import from_dict, require
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.store import (
    Run,
    Sample,
    Store,
    failure_reasons,
    read_encoded_images,
    read_rejected,
    read_run,
)
from t2ipal.store.images import ENDINGS, decode_image

CARD_KEY, SAMPLES_KEY = "README.md", "samples.jpg"
TITLE = "t2ipal synthetic images, "
OURS = re.compile(f"---\npretty_name: ['\"]?{TITLE}".encode())
"""How each of our cards begins; YAML puts some vocabularies' names into quotes."""
SAMPLE_SHARDS, SAMPLES_PER_SHARD, SAMPLE_COLUMNS = 6, 4, 6
SAMPLE_SIDE_PX = 160
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
BODY = """
# Synthetic images for {num_classes} classes ({vocabulary})

{num_images:,} images that {pipeline} drew from {num_captions:,} captions. Nobody labelled an
image: its labels are the classes that its caption names. Made with t2ipal; not photographs.

![Samples of the images]({samples})

{captions}

| | |
|---|---|
| images | {num_images:,} |
| samples without an image | {num_failed:,} {reasons}|
| captions | {num_captions:,} kept, {num_rejected:,} looked at and not taken |
| classes an image is labelled with | {labels_per_image:.2f} on average |

## How they were made

| setting | value |
|---|---|
{settings}

## Classes

| class | captions | images | share of images |
|---|---|---|---|
{classes}

## Files

`images/*.tar` hold `{image}`, `KEY.txt` (the caption) and `KEY.json` (labels, seed, settings) of
each sample, as webdataset and open_clip read them; `images/*.parquet` the same rows as a table,
failed samples included. A tar counts where a marker `images/*.json` with its checksum lies beside
it. `manifest.json` lists them all.

## Before using them

- A caption may leave out what the image shows, and the image what the caption names: labels are
  noisy both ways.
- The images carry the biases of the captions and of the model that drew them, and its license's
  terms.
"""
logger = logging.getLogger(__name__)


def write_card(store: Store) -> None:
    """Writes the card and the sheet of a finished run; warns and leaves a README of another kind.

    Raises:
        FileNotFoundError: the run is not finished.
        ValueError: the run has no image, or is damaged.
    """
    run = read_run(store)
    require(run.manifest.num_images > 0, f"No image in {store.uri}: there is nothing to describe.")
    if store.exists(CARD_KEY) and not OURS.match(store.read(CARD_KEY)):
        logger.warning(
            "%s in %s is no data-set card of t2ipal and was left alone. Remove it and run the same "
            "command again for one.",
            CARD_KEY,
            store.uri,
        )
        return
    samples = _samples(run)
    buffer = io.BytesIO()
    _sheet([image for _, image in samples]).save(buffer, "JPEG", quality=90)
    store.write(SAMPLES_KEY, buffer.getvalue())
    store.write(CARD_KEY, _card(run, [sample for sample, _ in samples]).encode())


def _samples(run: Run) -> list[tuple[Sample, np.ndarray]]:
    """A few images of shards from all over the run."""
    shards = [m.shard for m in run.markers if m.num_rows > m.num_failed]
    chosen = [shards[len(shards) * k // SAMPLE_SHARDS] for k in range(SAMPLE_SHARDS)]
    count = {shard: SAMPLES_PER_SHARD * chosen.count(shard) for shard in dict.fromkeys(chosen)}
    samples = []
    for shard, wanted in count.items():
        pairs = list(read_encoded_images(run.store, shard))
        wanted = min(wanted, len(pairs))
        chosen_pairs = (pairs[len(pairs) * k // wanted] for k in range(wanted))
        samples += [(sample, decode_image(data)) for sample, data in chosen_pairs]
    return samples


def _sheet(images: Sequence[np.ndarray]) -> Image.Image:
    """The images one row after the other."""
    side, columns = SAMPLE_SIDE_PX, min(SAMPLE_COLUMNS, len(images))
    sheet = Image.new("RGB", (columns * side, -(-len(images) // columns) * side), "white")
    for place, pixels in enumerate(images):
        small = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
        sheet.paste(small, (place % columns * side, place // columns * side))
    return sheet


def _card(run: Run, samples: Sequence[Sample]) -> str:
    manifest, settings, made = run.manifest, run.settings, len(run.images)
    names = settings.class_names
    images = Counter(label for image in run.images for label in image.labels)
    named = Counter(label for caption in run.captions for label in caption.labels)
    reasons = failure_reasons(run.store, run.markers)
    head = {
        "pretty_name": f"{TITLE}{settings.vocabulary}",
        "task_categories": ["image-classification"],
        "tags": ["synthetic", "multi-label", "text-to-image", "webdataset"],
        "size_categories": [_size(manifest.num_images)],
    }
    model = {f"model.{part}": value for part, value in (settings.model or {}).items()}
    # A run from before its model was kept says no more of it.
    known = model or {"revision": "the newest"}
    synthesis = {**known, **_without_nones(settings.synthesis)}
    body = BODY.format(
        num_classes=len(names),
        vocabulary=settings.vocabulary,
        num_images=manifest.num_images,
        num_failed=manifest.num_failed,
        num_captions=len(run.captions),
        num_rejected=len(read_rejected(run.store)),
        image="KEY." + ENDINGS[from_dict(SynthesisConfig, settings.synthesis).image_format],
        pipeline=f"`{synthesis['pipeline']}`",
        samples=SAMPLES_KEY,
        reasons="".join(f"({count} x {_cell(reason)}) " for reason, count in reasons.items()),
        labels_per_image=np.mean([len(image.labels) for image in run.images]),
        captions="\n".join(
            f"{number}. {_cell(sample.caption)} (*{', '.join(names[i] for i in sample.labels)}*)"
            for number, sample in enumerate(samples, 1)
        ),
        settings="\n".join(f"| `{name}` | {_cell(value)} |" for name, value in synthesis.items()),
        classes="\n".join(
            f"| {_cell(name)} | {named[i]:,} | {images[i]:,} | {images[i] / made:.1%} |"
            for i, name in enumerate(names)
        ),
    )
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n{body}"


def _size(count: int) -> str:
    """The hub's own name of a data set's size."""
    return next((name for end, name in SIZES if count < end), "n>1M")


def _without_nones(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _cell(value: Any) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = " ".join(str(value).split())
    for sign in ("\\", "`", "*", "_", "[", "]", "<", ">", "|"):
        text = text.replace(sign, "\\" + sign)
    return text
