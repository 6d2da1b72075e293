"""The YAML file of a pipeline: where its run lies, and the options of each stage."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from t2ipal.config import PositiveFloat, check_fields, from_dict, one_of, read_yaml, require
from t2ipal.places import LocalPath, SharedUri, resolve_places

STAGES = (
    "captions", "filter", "synthesis", "features", "choice", "training", "evaluation", "report",
)  # fmt: skip
"""In their order; each may be left out."""


@dataclass(frozen=True)
class PipelineFile:
    """What a pipeline is asked for; the options of its stages are still to be checked."""

    run: SharedUri
    """Folder of the run: a local path, or s3://bucket/prefix."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    budget_dollars: PositiveFloat | None = None
    """What the run may cost in all; None: no limit."""
    prices: LocalPath | None = None
    """Table of prices and rates; None: the package's."""
    backbone: Mapping[str, Any] = field(default_factory=dict)
    """The CLIP of all stages, by the options of jobs/train.py."""
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Stage -> its options, for the stages that are to run."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(bool(self.stages), f"A pipeline needs a stage: {', '.join(STAGES)}.")
        has_filter, has_synthesis = ("filter" in self.stages), ("synthesis" in self.stages)
        require(
            has_filter == has_synthesis,
            "filter says which captions synthesis draws: give both, or none of them for a run "
            "that has its images.",
        )
        require(
            has_filter or "captions" not in self.stages,
            "captions writes what filter reads: add filter and synthesis.",
        )


def read_pipeline(path: Path, changes: Mapping[str, Any]) -> PipelineFile:
    """Reads a pipeline's file.

    Args:
        path: of the YAML.
        changes: fields that replace those of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML, or has a key or value that no pipeline has.
    """
    require(not path.is_dir(), f"A pipeline is a YAML file, got the folder {path}.")
    if not path.exists():
        raise FileNotFoundError(f"No pipeline at {path}. Copy pipeline.yaml, and change it.")
    content = read_yaml(path)
    require(isinstance(content, Mapping), f"{path} must hold run: and stages, got {content!r:.80}.")
    own = [field.name for field in fields(PipelineFile) if field.name != "stages"]
    try:
        stages = {}
        for name, value in content.items():
            one_of("key", name, [*own, *STAGES])
            if name in STAGES:
                stages[name] = {} if value is None else value
                require(
                    isinstance(stages[name], Mapping),
                    f"{name} must hold options, one a line as `name: value`, got {value!r:.80}.",
                )
        values = {name: content[name] for name in own if content.get(name) is not None}
        ordered = {name: stages[name] for name in STAGES if name in stages}
        return resolve_places(from_dict(PipelineFile, {**values, **changes, "stages": ordered}))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
