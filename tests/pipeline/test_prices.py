import pytest

from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.pipeline.prices import SHIPPED, PriceTable, num_passes, read_prices

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"


def test_shipped_table_has_a_price_and_a_source_for_every_type_of_the_cluster():
    table = read_prices(SHIPPED)
    assert isinstance(table, PriceTable)
    from t2ipal.config import read_yaml

    cluster = read_yaml(SHIPPED.parents[2] / "cluster.yaml")
    assert {*table.machines} == {*cluster["available_node_types"], "local"}
    for machine in table.machines.values():
        assert machine.dollars_per_hour is not None and machine.source


def test_passes():
    assert num_passes(SynthesisConfig(num_inference_steps=10, guidance_scale=1.0)) == 10
    config = SynthesisConfig(num_inference_steps=10, guidance_until=0.6, guidance_from=0.1)
    assert num_passes(config) == pytest.approx(15)


def test_a_rate_is_measured_or_estimated():
    table = read_prices(SHIPPED)
    half = SynthesisConfig(num_inference_steps=7)
    rate, source = table.images_per_hour("local", half) or (0, "")
    assert rate == pytest.approx(2 * 98640) and "docs/speed.md" in source
    # 20 steps, all guided: 40 passes of 0.803 and 2.51 for the decoder, by hand.
    config = SynthesisConfig(pipeline=SD15, num_inference_steps=20)
    rate, source = table.images_per_hour("gpu_l4", config) or (0, "")
    assert rate == pytest.approx(3600 * 36 / 34.63) and "estimate" in source
    assert table.images_per_hour("local", config) is None
    other = SynthesisConfig(pipeline="owner/other")
    assert table.images_per_hour("gpu_l4", other) is None


@pytest.mark.parametrize(
    "text, told",
    [
        ("machines: {a: {dollars_per_hour: -1}}", "dollars_per_hour must be >= 0"),
        ("machines: {a: {dollars: 1}}", "Did you mean 'dollars_per_hour'"),
        ("machines: {a: {}}\nrates: [{machine: b, model: m, images_per_hour: 1}]", "Unknown mach"),
        ("rates: []", "machines of PriceTable must be given"),
        ("[]", "must hold machines"),
    ],
)
def test_refuses(tmp_path, text, told):
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as refused:
        read_prices(path)
    assert told in str(refused.value) and str(path) in str(refused.value)
