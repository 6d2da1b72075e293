"""The recognizer: a method's configuration and the constants that recognition needs at test time.

Owns where each equation's result goes, which training and test share; does not know prompts, how
its constants came about, or batches.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from t2ipal import scoring
from t2ipal.config import from_dict, one_of, require, to_dict
from t2ipal.features import FeatureSet


@dataclass(frozen=True)
class MethodConfig:
    """Everything that decides what the method computes, for one set of classes."""

    class_names: tuple[str, ...]
    """The data set's own names, in the order of the label columns."""
    prompt_names: tuple[str, ...]
    """What goes into the prompts in their place, e.g. "tv monitor" for "tvmonitor"."""
    context_length: int = 16
    """Learned vectors before the class name (M) where `context_init` is "normal" (TaI-DPT: 16)."""
    context_init: str = "normal"
    """"normal": N(0, 0.02) (TaI-DPT); or words such as "a photo of a", which bring their length."""
    class_specific_context: bool = False
    """One context per class instead of one for all (shared in TaI-DPT)."""
    prompt_suffix: str = "."
    """Text right after the class name (TaI-DPT and zero-shot CLIP: a period)."""
    global_feature: str = "global"
    """Image feature of p: "global" (pooled without positional embedding, as in TaI-DPT) or "pooled"
    (CLIP's own output, as in zero-shot CLIP)."""
    local_scores: bool = True
    """False leaves p' and its prompts out of loss and prediction: TaI instead of TaI-DPT."""
    aggregation: str = "weighted"
    """Locations to one score (eq. 3): "weighted", its limits "mean" and "max", or "learnable" with
    a learned factor on both temperatures (eq. 8)."""
    text_temperature: float = 0.02
    """tau_s over the tokens of a caption (TaI-DPT)."""
    image_temperature: float = 0.02
    """tau_s over the locations of an image, in training and at test (TaI-DPT tests with 0.025)."""
    adapter: str = "local"
    """Where the prototypes act: "local" (the paper's), "global" (Table VII) or "none"."""
    residual: str = "add"
    """p + alpha phi: "add"; (1 - alpha) p + alpha phi: "mix"; "add" with alpha learned (eq. 9):
    "learnable"."""
    residual_ratio: float = 1.0
    """alpha, weight of the prototypes' affinity; the start where learned. 0: no adapter."""
    sharpness: float = 5.5
    """beta of the affinity (Tip-Adapter's optimum)."""
    image_weight: float = 0.6
    """lambda, share of the images' loss: 0 captions only, 1 images only (best at 0.5 to 0.8)."""
    margin: float = 1.0
    """m of the ranking loss (TaI-DPT)."""
    scale: float = 4.0
    """s, factor on every score inside the ranking loss (TaI-DPT)."""

    def __post_init__(self) -> None:
        names = len(self.class_names), len(self.prompt_names)
        require(
            names[0] == names[1],
            f"Every class needs one prompt name, got {names[1]} for {names[0]}.",
        )
        require(names[0] >= 2, f"Ranking needs 2 classes or more, got {names[0]}.")
        one_of("global feature", self.global_feature, ("global", "pooled"))
        one_of("aggregation", self.aggregation, ("weighted", "mean", "max", "learnable"))
        one_of("adapter", self.adapter, ("none", "local", "global"))
        one_of("residual", self.residual, ("add", "mix", "learnable"))
        require(bool(self.context_init.strip()), 'context_init must be "normal" or words, got "".')
        for field in ("context_length", "text_temperature", "image_temperature", "margin", "scale"):
            value = getattr(self, field)
            require(value > 0, f"{field} must be > 0, got {value}.")
        for field in ("residual_ratio", "sharpness"):
            value = getattr(self, field)
            require(value >= 0, f"{field} must be >= 0, got {value}.")
        for field in ("image_weight",) + (("residual_ratio",) if self.residual == "mix" else ()):
            value = getattr(self, field)
            require(0 <= value <= 1, f"{field} must be between 0 and 1, got {value}.")
        require(
            self.local_scores or self.adapter != "local",
            'adapter "local" needs local_scores; set adapter to "none" or "global".',
        )


class BranchScores(NamedTuple):
    """Both scores of every class, adapter included."""

    global_scores: Float[Tensor, "batch classes"]
    """p_i."""
    local_scores: Float[Tensor, "batch classes"] | None
    """phat'_i; None for a method without local scores."""


@dataclass(frozen=True)
class Recognizer:
    """The constants that recognition needs: no text encoder, no CLIP text weights."""

    config: MethodConfig
    global_embeddings: Float[Tensor, "classes width"]
    """G, normalized."""
    local_embeddings: Float[Tensor, "classes width"]
    """L, normalized."""
    prototypes: Float[Tensor, "classes width"] | None
    """W; None without adapter."""
    temperature_factor: Float[Tensor, ""]
    """On both temperatures; 1 unless learned (eq. 8)."""
    residual_ratio: Float[Tensor, ""]
    """alpha; the config's unless learned (eq. 9)."""

    def branch_scores(
        self,
        global_features: Float[Tensor, "batch width"],
        local_features: Float[Tensor, "batch locations width"],
        mask: Bool[Tensor, "batch locations"] | None,
        temperature: float,
    ) -> BranchScores:
        """p and phat' of images or captions (paper, eq. 2 to 6)."""
        config, prototypes = self.config, self.prototypes
        global_features = global_features.to(self.global_embeddings.dtype)
        global_scores = global_features @ self.global_embeddings.T
        if prototypes is not None and config.adapter == "global":
            attended = global_features.unsqueeze(1).expand(-1, len(prototypes), -1)
            affinities = scoring.affinity(attended, prototypes, config.sharpness)
            global_scores = scoring.residual(
                global_scores, affinities, self.residual_ratio, config.residual
            )
        if not config.local_scores:
            return BranchScores(global_scores, None)
        local_features = local_features.to(self.local_embeddings.dtype)
        similarities = scoring.local_similarities(local_features, self.local_embeddings)
        heatmap = scoring.class_wise_heatmap(
            similarities, mask, temperature * self.temperature_factor, config.aggregation
        )
        local_scores = scoring.aggregate(similarities, heatmap)
        if prototypes is not None and config.adapter == "local":
            attended = scoring.attend(heatmap, local_features)
            affinities = scoring.affinity(attended, prototypes, config.sharpness)
            local_scores = scoring.residual(
                local_scores, affinities, self.residual_ratio, config.residual
            )
        return BranchScores(global_scores, local_scores)

    def scores(
        self,
        global_features: Float[Tensor, "batch width"],
        local_features: Float[Tensor, "batch locations width"],
    ) -> Float[Tensor, "batch classes"]:
        """Predictions for images: (p + phat') / 2, higher is more likely; no probabilities."""
        branch = self.branch_scores(
            global_features, local_features, None, self.config.image_temperature
        )
        if branch.local_scores is None:
            return branch.global_scores
        return (branch.global_scores + branch.local_scores) / 2

    def predict(self, images: FeatureSet) -> Float[Tensor, "batch classes"]:
        """`scores` of the rows of a feature set of images."""
        return self.scores(image_globals(images, self.config), images.local_features)

    def heatmap(
        self, local_features: Float[Tensor, "batch locations width"]
    ) -> Float[Tensor, "batch classes locations"]:
        """A_ij of images: how much each location counts for each class; sums to 1 (eq. 4)."""
        local_features = local_features.to(self.local_embeddings.dtype)
        return scoring.class_wise_heatmap(
            scoring.local_similarities(local_features, self.local_embeddings),
            None,
            self.config.image_temperature * self.temperature_factor,
            self.config.aggregation,
        )

    def save(self, directory: Path | str) -> None:
        """Writes `recognizer.safetensors` and, last, `recognizer.json`."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in vars(self).items()
            if isinstance(tensor, Tensor)
        }
        save_file(tensors, directory / "recognizer.safetensors")
        text = json.dumps(to_dict(self.config), indent=2)
        (directory / "recognizer.json").write_text(text + "\n")

    @staticmethod
    def load(directory: Path | str) -> "Recognizer":
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: no recognizer there.
            ValueError: weights that do not fit the config beside them.
        """
        path = Path(directory) / "recognizer.json"
        if not path.is_file():
            raise FileNotFoundError(f"No recognizer in {directory}. Run jobs/train.py first.")
        config = from_dict(MethodConfig, json.loads(path.read_text()))
        try:
            tensors = load_file(path.with_suffix(".safetensors"))
        except SafetensorError as error:
            raise ValueError(
                f"The weights in {directory} are damaged ({error}). Run jobs/train.py again."
            ) from error
        expected = {field.name for field in dataclasses.fields(Recognizer)} - {"config"}
        expected -= {"prototypes"} if config.adapter == "none" else set()
        weights = path.with_suffix(".safetensors").name
        require(
            set(tensors) == expected,
            f"{weights} must hold {sorted(expected)}, got {sorted(tensors)}.",
        )
        rows, width = len(config.class_names), tensors["global_embeddings"].shape[-1]
        for name, tensor in tensors.items():
            shape = () if name in ("temperature_factor", "residual_ratio") else (rows, width)
            require(
                tensor.shape == shape,
                f"{name} in {weights} must have shape {shape}, got {tuple(tensor.shape)}.",
            )
        tensors.setdefault("prototypes", None)  # type: ignore
        return Recognizer(config, **tensors)


def image_globals(images: FeatureSet, config: MethodConfig) -> Float[Tensor, "batch width"]:
    """The image feature that p is computed from."""
    if config.global_feature == "global":
        return images.global_features
    require(
        images.pooled_features is not None,
        'global_feature "pooled" needs pooled_features; extract the features with them.',
    )
    return images.pooled_features  # type: ignore
