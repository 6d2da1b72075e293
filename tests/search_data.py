"""A small search: a fake CLIP's features, split, and a space over them."""

from fake_clip import NAMES, PROMPT_NAMES, training_features

from t2ipal.config import override
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.search.data import RunData, split_run
from t2ipal.search.setting import Setting
from t2ipal.search.space import Dimension, SearchConfig
from t2ipal.training.recipes import recipe

RECIPE = recipe("t2ipal", "pictovoc", NAMES, PROMPT_NAMES)
START = override(
    Setting(RECIPE.method, RECIPE.training),
    {"training.num_epochs": 4, "training.batch_size": 16},
)


def space(*dimensions: tuple, **options) -> SearchConfig:
    return SearchConfig(
        tuple(Dimension(*each) for each in dimensions),
        **{"validation_fraction": 0.3, "num_validations": 2, **options},
    )


def data(search: SearchConfig, num: int = 60) -> RunData:
    run = training_features(num)
    start = SynthesisConfig()
    own = (start.guidance_scale, start.num_inference_steps)
    return split_run(search, start, run, {own: run})
