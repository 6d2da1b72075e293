"""What the reproduction's recognizers learn from, and what they are measured on.

Captions with their images lie in runs of jobs/synthesize.py, each a set by its name; labelled
images and test sets are data sets. Loads features; computes none but those of test sets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from t2ipal.captions import load_vocabulary
from t2ipal.config import require
from t2ipal.evaluation import protocols
from t2ipal.evaluation.labelled_sets import labelled_features, only_labelled
from t2ipal.evaluation.stored_sets import Workers, in_process, stored_features
from t2ipal.evaluation.test_sets import DATA_SETS, TestFeatures, TestSet, load_test_set, measure_of
from t2ipal.features.backbone import Backbone, load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.extraction import feature_folder
from t2ipal.features.joined import JoinedTables, join_captions, join_images, relabelled
from t2ipal.features.reading import read_training_features
from t2ipal.features.sets import TrainingFeatures, packed
from t2ipal.pictovoc.attributes import MATRIX
from t2ipal.store import Store

ORIGINAL = "original"
"""Set of the images that the captions of the main set were written about."""
NOVEL = {"pictovoc": protocols.NOVEL_PICTOVOC, "coco2014": protocols.NOVEL_COCO}
"""Data set -> columns of its novel classes."""
LABELLED = {"pictovoc": "pictovoc_train", "voc2007": "voc2007_trainval"}
"""Data set -> its labelled images, where they are not called NAME_train."""


@dataclass(frozen=True)
class Captions:
    """Captions with their images."""

    sets: tuple[str, ...] = ("synthetic",)
    """Whose captions and images: several sets one behind the other."""
    originals: Literal["none", "instead", "beside"] = "none"
    """The images that the captions were written about, in place of synthetic ones or beside."""
    share: float = 1.0
    """Of the captions whose images are replaced by original ones."""
    same_images: bool = False
    """All seeds begin with the same images of a caption; else each with others, where there are
    more than are taken."""
    attributes: bool = False
    """Labelled by the attributes of what they name."""
    first: int | None = None
    """Only the first so many captions; None: all."""
    choice: str | None = None
    """Name of a choice among each set's images, which must keep the same ones ever after; None: all
    of them."""

    @property
    def all_sets(self) -> tuple[str, ...]:
        """The sets, with that of original images where it is used."""
        return self.sets if self.originals == "none" else (*self.sets, ORIGINAL)

    def draw(self, seed: int) -> int:
        """Which draw of the captions whose images are replaced; 0 where there is one for all."""
        return seed if self.originals == "instead" and 0 < self.share < 1 else 0


@dataclass(frozen=True)
class Labels:
    """Labelled images."""

    shots: int | None = None
    """Only so many images of each class; None: all of them."""
    episode: int | None = None
    """Of the novel classes alone; None: all classes, drawn anew for each seed."""


Source = Captions | Labels


@dataclass(frozen=True)
class Data:
    """Where everything of a reproduction lies; travels to every worker."""

    store: Store
    """Home of its features, fits and pages."""
    on: str
    """Data set whose classes these are: pictovoc, voc2007, coco2014, nuswide."""
    sets: Mapping[str, Store]
    """Sets of captions and images, by name."""
    images: Mapping[str, int]
    """Images a caption of each set."""
    backbones: Mapping[str, BackboneConfig]
    """By name; `main` is the one of most rows."""
    test_sets: tuple[str, ...]
    """On which all classes are measured."""
    test_root: str | None = None
    """Folder of a real data set."""
    num_labelled: int = 1000
    """Labelled images of the embedded world."""
    num_views: int = 4
    """Of each labelled image: itself, and augmented ones."""
    in_tests: int | None = None
    """Only the first so many images of each test set; None: all."""
    episodes: str | None = None
    """LaSO's file of episodes, for MS-COCO."""
    endpoint_url: str | None = None
    validation: str = ""
    """Labelled images that choose what is chosen after training; empty where there are none."""
    described: Mapping[str, Any] = field(default_factory=dict)
    """What was found out beforehand and holds for all workers: see `facts`."""
    lost: Mapping[tuple[Source, str], str] = field(default_factory=dict)
    """Why a source cannot be read, or seen by a backbone of this name."""

    @property
    def schedule(self) -> str:
        """Whose settings recipes take."""
        return DATA_SETS[self.on].schedule

    def __hash__(self) -> int:
        return hash((self.store.uri, self.on))

    def load_backbone(self, name: str) -> Backbone:
        """Loaded once in a process."""
        return _backbone(self.backbones[name])

    def vocabulary(self, source: Source) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the classes that a source labels, and what goes into prompts."""
        if isinstance(source, Captions) and source.attributes:
            return _names("pictovoc_attributes")
        names = _names(DATA_SETS[self.on].vocabulary or self.on)
        if isinstance(source, Labels) and source.episode is not None:
            at = NOVEL[self.on]
            return tuple(names[0][i] for i in at), tuple(names[1][i] for i in at)
        return names

    def measure(self, test_set: str) -> str:
        """mAP or accuracy."""
        return measure_of(test_set.partition("#")[0])

    def tests_of(self, source: Source) -> tuple[str, ...]:
        """Names of the test sets on which what a source teaches is measured."""
        if isinstance(source, Captions) and source.attributes:
            return ("pictovoc_attributes",)
        if isinstance(source, Labels) and source.episode is not None:
            return (f"{self.on}#novel",)
        return self.test_sets

    def validation_of(self, source: Labels) -> str:
        """The validation images by the classes that a source labels; empty where there are none."""
        alone = source.episode is not None and self.validation
        return f"{self.validation}#novel" if alone else self.validation

    def missing(
        self,
        source: Source,
        backbone: str,
        changes: Sequence[tuple[str, Any]] = (),
        needs_sets: bool = True,
    ) -> str:
        """Why a fit of these cannot be trained; empty where it can.

        Args:
            source: what it learns from.
            backbone: name of what sees it.
            changes: of the recipe.
            needs_sets: whether it needs the captions and images of its source.
        """
        if backbone not in self.backbones:
            return "another encoder: --other MODEL"
        if reason := self.lost.get((source, backbone)):
            return reason
        if isinstance(source, Labels):
            if source.episode is not None and self.on == "coco2014" and self.episodes is None:
                return "LaSO's episodes: --episodes FILE"
            alone = source.episode is not None and self.on not in NOVEL
            return f"novel classes of {self.on}, of which nobody has told" if alone else ""
        if source.attributes and self.on != "pictovoc":
            return "attributes, which are the embedded world's alone"
        if not needs_sets:
            return ""
        if absent := [name for name in source.all_sets if name not in self.sets]:
            return f"a set of images: --sets {absent[0]}=RUN"
        wanted = dict(changes).get("training.images_per_caption")
        fewest = min(source.sets, key=self.images.__getitem__)
        if wanted is not None and source.originals == "none" and wanted > self.images[fewest]:
            return f"{wanted} images a caption; {fewest} has {self.images[fewest]}"
        return ""

    def facts(self, source: Source, backbone: str) -> list[Any]:
        """What a result depends on beside the fit's own settings."""
        tests = [self.described["tests"].get(name) for name in self.tests_of(source)]
        facts: list[Any] = [self.on, self.test_root, self.described["backbones"][backbone], tests]
        if isinstance(source, Labels):
            return [*facts, self.described["labelled"], self.num_views, self.episodes]
        there = [name for name in source.all_sets if name in self.sets]
        return [*facts, [self.described["sets"][name] for name in there]]

    def training(self, source: Source, seed: int, backbone: str) -> TrainingFeatures:
        """What a fit learns from."""
        if isinstance(source, Captions):
            data = _of_captions(self, source, backbone, source.draw(seed))
            if source.first is not None:
                few = torch.arange(min(source.first, len(data.texts)))
                rows = data.image_of_caption[few]
                data = TrainingFeatures(data.texts.subset(few), data.images, rows)
            if source.same_images:
                return data
            turned = turned_rows(data.image_of_caption, 2 * seed)
            return TrainingFeatures(data.texts, data.images, turned)
        data = load_labelled(self, backbone)
        labels = (data.texts.labels > 0).numpy()
        if source.episode is not None:
            assert source.shots is not None
            if self.episodes is None:
                found = protocols.episodes_of(labels, NOVEL[self.on], source.shots)
            else:
                listed = len(labelled_set(self).labels)
                require(
                    listed == len(labels),
                    "LaSO's episodes are positions in train2014's list: all its photographs must "
                    f"be there and readable, got {len(labels):,} of {listed:,}.",
                )
                found = protocols.read_episodes(self.episodes)[source.shots]
            matrix = torch.eye(labels.shape[1])[:, list(NOVEL[self.on])]
            return relabelled(only_labelled(data, found[source.episode]), matrix)
        if source.shots is None:
            return data
        return only_labelled(data, protocols.few_shot_rows(labels, source.shots, seed))

    def tests(self, source: Source, backbone: str) -> list[TestFeatures]:
        """Features of the test sets of a source."""
        return [self.test(name, backbone) for name in self.tests_of(source)]

    def test(self, name: str, backbone: str) -> TestFeatures:
        """Features of a test set; of the novel classes alone where `#novel` follows its name."""
        return _test(self, name, backbone)


def turned_rows(rows: Int[Tensor, "captions k"], by: int) -> Int[Tensor, "captions k"]:
    """Each caption's own images in turn: those that came first come last, then -1 where none is."""
    count = (rows >= 0).sum(dim=1, keepdim=True)
    place = torch.arange(rows.shape[1]).expand_as(rows)
    return packed(rows).gather(
        1, torch.where(place < count, (place + by) % count.clamp(min=1), place)
    )


@lru_cache(maxsize=3)
def _backbone(config: BackboneConfig) -> Backbone:
    return load_backbone(config)


@lru_cache(maxsize=8)
def _names(vocabulary: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    known = load_vocabulary(vocabulary)
    return known.class_names, known.prompt_names


@lru_cache(maxsize=3)
def _set(data: Data, name: str, backbone: str, choice: str | None = None) -> TrainingFeatures:
    folder = feature_folder(data.load_backbone(backbone))
    return read_training_features(data.sets[name], folder, choice)


@lru_cache(maxsize=2)
def _of_captions(data: Data, source: Captions, backbone: str, draw: int) -> TrainingFeatures:
    parts = [_set(data, name, backbone, source.choice) for name in source.sets]
    whole = parts[0] if len(parts) == 1 else join_captions(parts)
    if source.originals != "none":
        own = whole.image_of_caption.shape[1]
        theirs = _set(data, ORIGINAL, backbone)
        require(
            getattr(whole.texts, "keys", None) == getattr(theirs.texts, "keys", None),
            f"The set {ORIGINAL} must have the very captions of {source.sets[0]}.",
        )
        whole = join_images(whole, theirs)
        rows = whole.image_of_caption.clone()
        if source.originals == "instead":
            generator = torch.Generator().manual_seed(draw)
            order = torch.randperm(len(rows), generator=generator)
            replaced = order[: round(source.share * len(rows))]
            kept = order[len(replaced) :]
            rows[replaced, :own] = -1
            rows[kept, own:] = -1
        whole = TrainingFeatures(whole.texts, whole.images, rows)
    if source.attributes:
        whole = relabelled(whole, torch.from_numpy(MATRIX).float())
    return whole


def labelled_set(data: Data) -> Any:
    """The labelled images, not looked at yet."""
    name = LABELLED.get(data.on, f"{data.on}_train")
    test = load_test_set(name, data.test_root, (), data.endpoint_url)
    few = data.on == "pictovoc" or data.in_tests is not None
    return test.only(range(min(data.num_labelled, len(test.labels)))) if few else test


def load_test(data: Data, name: str) -> TestSet:
    """A test set, or the first images of it where no more are wanted."""
    test = load_test_set(name, data.test_root, (), data.endpoint_url)
    if data.in_tests is None:
        return test
    return test.only(range(min(data.in_tests, len(test.labels))))


@lru_cache(maxsize=2)
def load_labelled(
    data: Data, backbone: str, workers: Workers = in_process, progress: bool = False
) -> TrainingFeatures:
    """Features of all views of the labelled images; `workers` compute what is missing."""
    test = labelled_set(data)
    return labelled_features(
        test, data.load_backbone(backbone), data.store, num_views=data.num_views, seed=0,
        workers=workers, known_from=protocols.known_from(*test.labels.shape), progress=progress,
    )  # fmt: skip


@lru_cache(maxsize=16)
def _test(data: Data, name: str, backbone: str) -> TestFeatures:
    whole, _, part = name.partition("#")
    test = load_test(data, whole)
    if part == "novel":
        columns = list(NOVEL[data.on])
        features = _test(data, whole, backbone)
        labels = features.features.labels.float()
        shown = (labels[:, columns] > 0).any(dim=1)
        table = JoinedTables([features.features], labels[:, columns]).subset(shown)
        names = tuple(test.class_names[at] for at in columns)
        return TestFeatures(name, names, table, None, [])
    return stored_features(test, data.load_backbone(backbone), data.store)
