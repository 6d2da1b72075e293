"""Sets of images of one run's captions; guidance is the images' gray."""

import dataclasses
import re
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from fake_synthesis import FakeConfig, FakeSynthesizer, a_request, texts
from tiny_clip import VIT, write_tiny_clip
from tiny_stable_diffusion import write_tiny_stable_diffusion

from t2ipal.config import override
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.features.config import BackboneConfig
from t2ipal.features.extraction import extract_run
from t2ipal.features.reading import read_training_features
from t2ipal.search.setting import setting_of_run
from t2ipal.search.space import Dimension, SearchConfig
from t2ipal.search.variants import plan_variants, synthesize_variants
from t2ipal.store import Store, read_images, read_manifest, read_run
from t2ipal.synthesis.making import add_images, synthesize
from t2ipal.training.recipes import recipe
from t2ipal.training.validation import held_out_captions, without_captions

GUIDANCE, STEPS = "synthesis.guidance_scale", "synthesis.num_inference_steps"
DRAWN = Counter()
"""Of the samples that were drawn: (guidance scale, caption id, k)."""


class Tinted(FakeSynthesizer):
    def __call__(self, batch):
        guidance = self.config.guidance_scale
        DRAWN.update((guidance, *sample) for sample in zip(batch["caption_id"], batch["k"]))
        output = super().__call__(batch)
        output["image"][:] = int(guidance * 10)
        return output


class Killed(Tinted):
    def __call__(self, batch):
        if self.config.guidance_scale == 3.0 and DRAWN.total() >= 8:
            raise KeyboardInterrupt
        return super().__call__(batch)


@pytest.fixture(autouse=True)
def nothing_drawn():
    DRAWN.clear()


def some_run(store, number=5, **changes):
    """Captions of pets with two images each, in shards of four; the setting of a search on it."""
    request = a_request(texts(number), FakeConfig(**changes), images_per_shard=4)
    synthesize(store, request, factory=Tinted)
    DRAWN.clear()
    return setting_on(store)


def setting_on(store):
    settings = read_manifest(store).settings
    names = settings.class_names, settings.prompt_names
    return setting_of_run(recipe("t2ipal", "pictovoc", *names), settings)


def grid(*guidance, **others):
    dimensions = [Dimension(GUIDANCE, "grid", guidance)]
    dimensions += [Dimension(path, "grid", values) for path, values in others.items()]
    return SearchConfig(tuple(dimensions), searcher="grid")


def names(plan):
    return [each.store.uri.rpartition("/")[2] for each in plan.sets]


def test_each_value_is_a_run_of_the_same_captions(store):
    setting, search = some_run(store), grid(2.0, 3.0)
    plan = plan_variants(store, setting, search)
    assert plan.num_missing == 10 and plan.of({GUIDANCE: 2.0}) is plan.run.store
    assert re.fullmatch(
        r"Images of the run's 5 captions:\n"
        r"  guidance_scale 2.0, num_inference_steps 20: the run's own\n"
        r"  guidance_scale 3.0, num_inference_steps 20: 10 of 10 to draw\n"
        r"10 images to draw, which takes one worker about 0:00:00.",
        plan.describe(),
    )
    synthesize_variants(plan, factory=Tinted)
    assert DRAWN.total() == 10 and {*DRAWN.values()} == {1}
    variant = plan.of({GUIDANCE: 3.0, "training.lr": 0.1})
    assert variant.uri == f"{store.uri}/variants/guidance_scale=3.0"
    own, other = read_run(store), read_run(variant)
    assert own.captions == other.captions
    assert [sample.seed for sample in own.images] == [sample.seed for sample in other.images]
    assert {int(image.mean().round()) for _, image in read_images(variant, "00000")} == {30}

    again = plan_variants(store, setting, search, max_images=0)
    assert again.num_missing == 0 and again.describe().endswith(
        "guidance_scale 3.0, num_inference_steps 20: there"
    )
    synthesize_variants(again, factory=Tinted)
    assert DRAWN.total() == 10


def test_sets_that_trials_take_and_no_others(tmp_path):
    store = Store(tmp_path)
    setting = some_run(store)
    plan = plan_variants(store, setting, grid(3.0, **{STEPS: (20, 30)}))
    assert names(plan) == ["guidance_scale=3.0", "guidance_scale=3.0,num_inference_steps=30"]
    assert plan.of({GUIDANCE: 3.0, STEPS: 30}).uri.endswith("steps=30")
    choices = (
        Dimension(GUIDANCE, "choice", (2.0, 3.0)),
        Dimension(STEPS, "choice", (20, 30)),
    )
    assert len(plan_variants(store, setting, SearchConfig(choices, searcher="optuna")).sets) == 4
    assert len(plan_variants(store, setting, SearchConfig(choices, num_samples=2)).sets) == 2
    ratio = SearchConfig((Dimension("method.residual_ratio", "choice", (0.5, 1.0)),))
    plan = plan_variants(store, setting, ratio)
    assert plan.of({"method.residual_ratio": 0.5}).uri == store.uri and plan.num_missing == 0
    # One value for all trials, other than the run's.
    plan = plan_variants(store, override(setting, {STEPS: 30}), ratio)
    assert names(plan) == ["num_inference_steps=30"]


def test_a_killed_synthesis_goes_on(tmp_path):
    store = Store(tmp_path)
    setting, search = some_run(store), grid(2.0, 3.0, 4.0)
    with pytest.raises(KeyboardInterrupt):
        synthesize_variants(plan_variants(store, setting, search), factory=Killed)
    left = plan_variants(store, setting, search)
    assert [each.num_missing for each in left.sets] == [0, 2, 10]
    synthesize_variants(left, factory=Tinted)
    assert DRAWN.total() == 20 and {*DRAWN.values()} == {1}
    # Between the last shard and the manifest.
    (tmp_path / "variants/guidance_scale=4.0/manifest.json").unlink()
    synthesize_variants(plan_variants(store, setting, search), factory=Tinted)
    assert DRAWN.total() == 20
    assert read_manifest(left.of({GUIDANCE: 4.0})).num_images == 10


def test_what_failed_is_tried_again_until_a_set_is_whole(tmp_path):
    class Broken(Tinted):
        def __call__(self, batch):
            return {**super().__call__(batch), "status": np.full(len(batch["k"]), "failed")}

    store = Store(tmp_path)
    setting, search = some_run(store), grid(2.0, 3.0)
    with pytest.raises(RuntimeError, match=r"scale=3.0: 4 of 10 .*then run the same command again"):
        synthesize_variants(plan_variants(store, setting, search), factory=Broken)
    plan = plan_variants(store, setting, search)
    assert plan.num_missing == 6
    synthesize_variants(plan, factory=Tinted)
    assert read_manifest(plan.of({GUIDANCE: 3.0})).num_images == 10


def test_variants_grow_with_their_run(tmp_path):
    store = Store(tmp_path)
    search = grid(2.0, 3.0)
    synthesize_variants(plan_variants(store, some_run(store), search), factory=Tinted)
    setting = some_run(store, 7, images_per_caption=3)
    plan = plan_variants(store, setting, search)
    assert plan.num_missing == 11
    synthesize_variants(plan, factory=Tinted)
    assert DRAWN.total() == 11
    assert read_run(plan.of({GUIDANCE: 3.0})).captions == read_run(store).captions
    assert "of a repair" not in plan.describe()
    add_images(store, {0: 2}, factory=Tinted)
    repaired = plan_variants(store, setting, search)
    assert "images of a repair too" in repaired.describe() and repaired.num_missing == 0


def test_cost_is_told_by_guided_and_unguided_passes(tmp_path):
    store = Store(tmp_path)
    setting = some_run(store)
    plan = plan_variants(store, setting, grid(1.0, 2.0, 4.0, **{STEPS: (20, 40)}))
    markers = [dataclasses.replace(marker, seconds=10.0) for marker in plan.run.markers]
    plan = dataclasses.replace(plan, run=dataclasses.replace(plan.run, markers=tuple(markers)))
    # 30 seconds for 10 images at 20 guided steps: 0.5 + 1 unguided, 2 + 1 + 2 guided.
    assert plan.worker_seconds == pytest.approx(30 * 6.5)
    assert plan.describe().endswith("50 images to draw, which takes one worker about 0:03:15.")
    markers = [dataclasses.replace(marker, seconds=0.0, other_seconds=None) for marker in markers]
    plan = dataclasses.replace(plan, run=dataclasses.replace(plan.run, markers=tuple(markers)))
    assert plan.describe().endswith("which takes one worker an unknown time.")


def test_bad_input(tmp_path):
    store = Store(tmp_path / "run")
    setting, search = some_run(store), grid(2.0, 3.0)
    with pytest.raises(ValueError, match=r"need 10 new images, and max_images allows 9\. Raise it"):
        plan_variants(store, setting, search, max_images=9)
    with pytest.raises(ValueError, match="max_images must be >= 0, got -1"):
        plan_variants(store, setting, search, max_images=-1)
    with pytest.raises(ValueError, match=r"may differ .* synthesis.seed: 0 there, 5 here"):
        plan_variants(store, override(setting, {"synthesis.seed": 5}), search)
    with pytest.raises(FileNotFoundError, match="No manifest"):
        plan_variants(Store(tmp_path / "none"), setting, search)
    assert not (tmp_path / "run/variants").exists()

    folder = tmp_path / "run/variants/guidance_scale=3.0"
    some_run(Store(folder), seed=5, guidance_scale=3.0)
    with pytest.raises(ValueError, match=r"3.0 holds other images.*synthesis.seed.*Remove that"):
        plan_variants(store, setting, search)
    shutil.rmtree(folder)
    some_run(Store(folder), 6, guidance_scale=3.0)
    with pytest.raises(ValueError, match=r"3.0 holds images of other captions.*Remove that folder"):
        plan_variants(store, setting, search)


def test_failing_images_hold_out_the_same_captions(tmp_path):
    class Failing(Tinted):
        def __call__(self, batch):
            output = super().__call__(batch)
            output["status"][batch["caption_id"] == "id 1"] = (
                "failed"  # held out where its images are there
            )
            return output

    store = Store(tmp_path / "run")
    plan = plan_variants(store, some_run(store, 40), grid(2.0, 3.0))
    synthesize_variants(plan, factory=Failing)
    config = BackboneConfig(model=str(write_tiny_clip(tmp_path / "clip", VIT)))
    own, other = (
        read_training_features(each.store, extract_run(each.store, config)) for each in plan.sets
    )
    assert (other.image_of_caption < 0).sum() == 2  # of the caption that failed there
    every = torch.arange(40)
    columns = [data.texts.rows(every) for data in (own, other)]
    assert torch.equal(columns[0].global_features, columns[1].global_features)
    assert torch.equal(own.texts.labels, other.texts.labels)
    # The split depends on which captions have images: the run's own says it for all.
    held = held_out_captions(own, 0.5, 0)
    assert not torch.equal(held, held_out_captions(other, 0.5, 0))
    train = without_captions(other, held)
    assert len(train.texts) == 20 and train.images is other.images
    assert torch.equal(train.image_of_caption, other.image_of_caption[~held])


def test_variants_are_drawn_with_the_runs_own_model(tmp_path):
    pipeline = write_tiny_stable_diffusion(tmp_path / "pipeline")
    store = Store(tmp_path / "run")
    config = SynthesisConfig(str(pipeline), guidance_scale=7.0, num_inference_steps=2)
    synthesize(store, a_request(texts(2), config))
    setting = setting_on(store)
    plan = plan_variants(store, setting, grid(1.0, 7.0))
    synthesize_variants(plan)
    own, other = (list(read_images(each.store, "00000")) for each in plan.sets)
    for (sample, image), (alike, changed) in zip(own, other, strict=True):
        assert (sample.key, sample.seed) == (alike.key, alike.seed)
        assert np.abs(image.astype(int) - changed.astype(int)).max() > 2
    (pipeline / "scheduler/scheduler_config.json").write_text("{}")
    with pytest.raises(ValueError, match="with which the run was begun"):
        synthesize_variants(plan_variants(store, setting, grid(7.0, 9.0)))
    assert not (tmp_path / "run/variants/guidance_scale=9.0").exists()
