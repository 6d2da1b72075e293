"""What is to be synthesized, and where: plain values, nothing is made here."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from t2ipal.captions import (
    CONTEXT_TOKENS,
    MAX_TOKENS,
    FilterResult,
    Tell,
    Vocabulary,
    class_remarks,
    filter_captions,
    fits,
    is_vocabulary_file,
    load_vocabulary,
    photo_prompts,
    read_captions,
    read_test_images,
)
from t2ipal.config import PositiveInt, Share, require, to_dict
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.places import NameOrPath, Uri
from t2ipal.pools import PoolConfig
from t2ipal.store import RunSettings


@dataclass(frozen=True)
class ExecutionConfig(PoolConfig):
    """Where a synthesis runs and when it gives up; nothing here changes an image."""

    max_failed_fraction: Share = 0.05
    """Share of samples that may fail, 0 to 1, before the run stops with an error."""
    retry_failed: bool = False
    """Also make again the samples that failed at their last attempt, with other seeds: those of the
    number of the attempt, which is kept with each sample."""


@dataclass(frozen=True)
class CaptionSource:
    """Where captions come from, and which of them are drawn."""

    captions: tuple[Uri, ...] = ()
    """Caption files, folders or patterns such as "shards/*.parquet", local or s3://: COCO's or
    Karpathy's json, jsonl, csv, tsv, parquet, Flickr's token file or a caption a line; packed by
    gzip, bzip2 or xz too."""
    caption_column: str | None = None
    """Column of the texts, or its number in a table without a line of names; None: guess."""
    id_column: str | None = None
    """Column of the ids; None: caption_id, id or sentid where there is one, else row numbers."""
    vocabulary: NameOrPath = "voc2007"
    """Classes to look for: voc2007, coco2014, nuswide, pictovoc_novel (the embedded world's things
    that are no VOC class), pictovoc_colors (its colors), or a file of your own: .yaml, or .txt with
    a class a line."""
    num_captions: int | None = None
    """Captions to keep, drawn at random from those that name a class; None: all."""
    caption_seed: int = 0
    """Seed of that draw; with the same seed, fewer captions are a part of more."""
    max_per_class: PositiveInt | None = None
    """Each caption counts for the rarest class that it names; keep the first so many of each class,
    as 1000 for the localized narratives that NUS-WIDE is trained on; None: all."""
    test_images: tuple[Uri, ...] = ()
    """Files that list test images, such as MS-COCO's instances_val2014.json: captions of these
    images would leak into training. That this was looked at is kept with the run."""
    caption_leak: Literal["clean", "ancestor"] = "clean"
    """What becomes of captions of `test_images`: `clean` leaves them out, `ancestor` only counts
    them, for TaI-DPT trained on train2017, which holds most of val2014."""

    def __post_init__(self) -> None:
        require(
            bool(self.test_images) or self.caption_leak == "clean",
            "caption_leak says what becomes of captions of test images: name these with "
            "--test-images.",
        )

    def read(
        self, endpoint_url: str | None = None, tell: Tell = lambda _: None
    ) -> tuple[Vocabulary, FilterResult]:
        """The vocabulary, and the captions that passed its filter and those that did not.

        Args:
            endpoint_url: server of captions on an S3 that is not on AWS.
            tell: takes what was guessed of files and classes, line by line.

        Raises:
            FileNotFoundError: captions or vocabulary are not there.
            ValueError: one of them is damaged, no caption names a class, or no recognizer could be
                trained on what they name.
        """
        vocabulary = load_vocabulary(self.vocabulary)
        _check_trainable(vocabulary)
        if is_vocabulary_file(self.vocabulary):
            tell(f"Looked for in captions: {vocabulary.describe()}.")
        test_images = read_test_images(self.test_images, self.caption_leak, endpoint_url)
        captions = filter_captions(
            read_captions(
                self.captions, endpoint_url, self.caption_column, self.id_column, tell, test_images
            ),
            vocabulary,
            self.num_captions,
            self.caption_seed,
            self.max_per_class,
        )
        for remark in class_remarks(vocabulary, captions):
            tell(remark)
        facts = None if test_images is None else test_images.facts()
        return vocabulary, dataclasses.replace(captions, test_images=facts)


def _check_trainable(vocabulary: Vocabulary) -> None:
    """Refuses, before hours of drawing, what training would."""
    names = vocabulary.class_names
    require(
        len(names) > 1,
        f"A vocabulary needs two classes: training ranks the classes that a caption names over "
        f"the others, and {vocabulary.name} has only {names[0]!r}. Add what else your photographs "
        "show, e.g. person.",
    )
    most = MAX_TOKENS - CONTEXT_TOKENS
    long = [name for name in vocabulary.prompt_names if not fits(f"{name}.", most)]
    require(
        not long,
        f"A class's name must fit into a prompt, in {most} tokens of CLIP, got {long[:1]}. Give "
        "the class a short `prompt`.",
    )


@dataclass(frozen=True)
class SynthesisRequest:
    """What is to be synthesized: it alone decides what the store will hold."""

    config: Any
    """A `t2ipal.diffusion.config.SynthesisConfig`."""
    vocabulary: Vocabulary
    captions: FilterResult
    """The kept ones are drawn, in their order; the rejected ones are stored with their reasons."""
    images_per_shard: int = 128
    """Images of one shard at most: small enough to lose on a crash, large enough to keep objects
    few. Those of one caption stay together."""

    def __post_init__(self):
        require(
            len(self.captions.kept) > 0,
            "No caption names a class of the vocabulary: nothing to draw.",
        )
        size = self.images_per_shard
        require(size > 0, f"images_per_shard must be > 0, got {size}.")
        counts = collections.Counter(caption.caption_id for caption in self.captions.kept)
        twice = [name for name, count in counts.items() if count > 1]
        require(not twice, f"Caption ids must be unique, got {twice[:3]} more than once.")

    def settings(self, model: Mapping[str, str] | None = None) -> RunSettings:
        """What a run of this request keeps while it grows.

        Args:
            model: what the names of its model stand for; None where that is not known.
        """
        synthesis = to_dict(self.config)
        del synthesis["images_per_caption"]
        return RunSettings(
            synthesis=synthesis,
            vocabulary=self.vocabulary.name,
            class_names=self.vocabulary.class_names,
            prompt_names=self.vocabulary.prompt_names,
            images_per_shard=self.images_per_shard,
            model=model,
            test_images=self.captions.test_images,
        )


def with_class_prompts(config: SynthesisConfig, prompt_names: Sequence[str]) -> SynthesisConfig:
    """The config with "a photo of a {}." of each class, where it composes and has none.

    Raises:
        ValueError: it has prompts, and not one for each class.
    """
    given, wanted = len(config.class_prompts), len(prompt_names)
    require(
        given in (0, wanted),
        f"class_prompts must hold one prompt for each of the {wanted} classes of the vocabulary, "
        f"in its order, got {given}.",
    )
    if not config.composition or config.class_prompts:
        return config
    return dataclasses.replace(config, class_prompts=tuple(photo_prompts(prompt_names)))
