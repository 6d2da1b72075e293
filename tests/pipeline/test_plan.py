import pytest
from fake_synthesis import a_request, caption, texts

from t2ipal.captions import FilterResult
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.features.config import BackboneConfig
from t2ipal.pipeline.plan import describe_plan, plan_images
from t2ipal.pipeline.prices import Machine, Model, PriceTable, Rate
from t2ipal.store import Store
from t2ipal.synthesis.growth import record_request

PRICES = PriceTable(
    {"gpu": Machine(2.0, gpus=4), "other": Machine(gpus=1), "cpu": Machine(1.0)},
    (Rate("gpu", "owner/model", 100.0),),
    {"owner/model": Model(512)},
)
CONFIG = SynthesisConfig(pipeline="owner/model", images_per_caption=3)


def planned(store, count, config=CONFIG):
    kept = [caption(f"{at:02d}", text) for at, text in enumerate(texts(count))]
    captions = FilterResult(kept, [])
    return plan_images(store, captions, config, 8, BackboneConfig("RN101"), PRICES)


def test_by_hand(tmp_path):
    plan = planned(Store(tmp_path), 10)
    # Two captions of three images fit into a shard of eight.
    assert (plan.num_images, plan.num_shards, plan.num_images_left) == (30, 5, 30)
    gpu, other = plan.costs
    assert gpu.hours == pytest.approx(0.3) and gpu.dollars == pytest.approx(0.3 * 2 / 4)
    assert other.hours is None and other.dollars is None
    assert plan.least_dollars(on_cluster=True) == gpu.dollars
    assert plan.bytes_of["images"] == round(30 * (0.47 * 512**2 + 3072))
    # RN101: 49 locations and the whole, 512 halves each; 14 tokens of a caption and the whole.
    assert plan.bytes_of["features"] == 30 * 50 * 1024 + 10 * 15 * 1024
    told = describe_plan(plan, (1, 2))
    assert "0:18:00" in told and "0:09:00" in told and "0.47 x 512 x 512" in told


def test_growth_counts_what_is_there(tmp_path):
    store, request = Store(tmp_path), a_request()
    record_request(store, request.captions.kept, [], 2, 8)
    more = plan_images(
        store, request.captions, SynthesisConfig(images_per_caption=3), 8, None, PRICES
    )
    # 11 captions: 3 shards of 4 captions with 2 images, 2 shards of 8 captions with one more.
    assert (more.num_images, more.num_shards) == (33, 5)
    assert more.bytes_of["images"] is None and "features" not in more.bytes_of
    assert more.least_dollars(on_cluster=True) is None
    with pytest.raises(ValueError, match="are not among those asked for"):
        planned(store, 5)
