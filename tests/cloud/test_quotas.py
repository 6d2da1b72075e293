from pathlib import Path

import boto3
import pytest
import yaml
from botocore.stub import Stubber
from conftest import use_credentials

from t2ipal.cloud.quotas import MachineKind, QuotaUse, machine_kinds, read_quotas, uses_of

ROOT = Path(__file__).parents[2]
KINDS = [
    MachineKind("head", "m7i.xlarge", False, 1, head=True),
    MachineKind("small", "g6.xlarge", True, 8),
    MachineKind("large", "g5.12xlarge", True, 1),
]


@pytest.mark.parametrize(
    ("instance_type", "spot", "code"),
    [
        ("m7i.xlarge", False, "L-1216C47A"),
        ("c7g.large", True, "L-34B43A08"),
        ("g6e.xlarge", True, "L-3819A6DF"),
        ("vt1.3xlarge", False, "L-DB2E81BA"),
        ("p4d.24xlarge", True, "L-7212CCBC"),
        ("p5.48xlarge", True, "L-C4BD4855"),
        ("p5.48xlarge", False, "L-417A185B"),
        ("inf2.xlarge", False, None),
    ],
)
def test_each_machine_counts_for_a_quota(instance_type, spot, code):
    quota = MachineKind("x", instance_type, spot, 1).quota
    assert (quota and quota[0]) == code


def test_the_shipped_cluster_is_read():
    kinds = machine_kinds(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    of_each = {}
    for kind in kinds:
        assert kind.quota
        of_each.setdefault(kind.quota[0], []).append(kind.node_type)
    assert of_each == {
        "L-1216C47A": ["head", "cpu"],
        "L-3819A6DF": ["gpu_l4", "gpu_l40s", "gpu_a10g"],
        "L-DB2E81BA": ["gpu_on_demand"],
    }
    assert [kind.node_type for kind in kinds if kind.head] == ["head"]
    assert machine_kinds({"provider": {"type": "gcp"}}) == []
    assert machine_kinds({"provider": {"type": "external", "module": "another.Provider"}}) == []
    with pytest.raises(ValueError, match=r"missing, .*'available_node_types'"):
        machine_kinds({"provider": {"type": "aws"}})


def test_quotas_are_counted_in_vcpus(monkeypatch):
    use_credentials(monkeypatch, "key", "very-secret")
    quotas, ec2 = boto3.client("service-quotas"), boto3.client("ec2")
    sizes = {"g5.12xlarge": 48, "g6.xlarge": 4, "m7i.xlarge": 4}
    with Stubber(quotas) as of_quotas, Stubber(ec2) as of_ec2:
        of_ec2.add_response(
            "describe_instance_types",
            {"InstanceTypes": [{"InstanceType": name, "VCpuInfo": {"DefaultVCpus": size}}
                               for name, size in sizes.items()]},
            {"InstanceTypes": sorted(sizes)},
        )  # fmt: skip
        for code, value in (("L-1216C47A", 5.0), ("L-3819A6DF", 32.0)):
            of_quotas.add_response(
                "get_service_quota",
                {"Quota": {"Value": value}},
                {"ServiceCode": "ec2", "QuotaCode": code},
            )
        standard, spot = uses_of(KINDS, 5, quotas, ec2)
    assert standard == QuotaUse("Running On-Demand Standard instances", 5.0, 4, 4, ("head",))
    assert spot == QuotaUse(
        "All G and VT Spot Instance Requests", 32.0, 4, 48 + 4 * 4, ("small", "large")
    )
    assert spot.num_machines == 8


def test_without_credentials(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PermissionError, match=r"there are no AWS credentials here"):
        read_quotas(KINDS, 5, "us-west-2")


def test_a_refusal_has_aws_s_words_and_no_secret(monkeypatch, s3_server):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    with pytest.raises(PermissionError, match=r"AWS refused \(\w+\): .*GetServiceQuota") as info:
        read_quotas([MachineKind("x", "g6.xlarge", True, 1)], 1, "us-west-2")
    assert "very-secret" not in str(info.value)
