from pathlib import Path

import pytest
import yaml
from metadata_server import metadata_server

from t2ipal.cloud.quotas import QuotaUse
from t2ipal.doctor import account
from t2ipal.doctor.account import check_quotas, machines_region

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clean(monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_the_region_of_the_machines(clean, monkeypatch, tmp_path):
    none = tmp_path / "none.yaml"
    assert machines_region(none) is None
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert machines_region(none) == "us-east-1"
    with metadata_server() as server:
        server.values["placement/region"] = "eu-west-1"
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        assert machines_region(none) == "us-east-1"
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        assert machines_region(none) == "eu-west-1"
    assert machines_region(none) == "us-east-1"  # nobody answers there now
    region = yaml.safe_load((ROOT / "cluster.yaml").read_text())["provider"]["region"]
    assert machines_region(ROOT / "cluster.yaml") == region


def test_quotas_that_nobody_could_ask_for(tmp_path, monkeypatch):
    (found,) = check_quotas(tmp_path / "none.yaml")
    assert found.state == "not looked at"
    (tmp_path / "gcp.yaml").write_text("provider: {type: gcp}\n")
    (found,) = check_quotas(tmp_path / "gcp.yaml")
    assert found.text.endswith("is not AWS.")

    def refuse(kinds, max_workers, region):
        raise PermissionError("there are no AWS credentials here.")

    monkeypatch.setattr(account, "read_quotas", refuse)
    (found,) = check_quotas(ROOT / "cluster.yaml")
    assert (found.state, found.text) == ("not looked at", "there are no AWS credentials here.")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match=r"no cluster.yaml of Ray"):
        [*check_quotas(tmp_path / "list.yaml")]


@pytest.mark.parametrize(
    ("vcpus", "state", "text"),
    [
        (0, "wrong", "a machine of gpu has 4: none can start. Ask for 32"),
        (8, "ok", "gpu can have 2 of the smallest machine, for all ask for 32."),
        (64, "ok", "enough for all of gpu (32)."),
    ],
)
def test_quotas(monkeypatch, vcpus, state, text):
    use = QuotaUse("All G and VT Spot Instance Requests", vcpus, 4, 32, ("gpu",))
    monkeypatch.setattr(
        account, "read_quotas", lambda kinds, max_workers, region: [use] * (max_workers == 12)
    )
    (found,) = check_quotas(ROOT / "cluster.yaml")
    assert found.state == state and text in found.text
