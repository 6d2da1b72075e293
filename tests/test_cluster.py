"""cluster.yaml, as far as it can be checked without AWS: Ray's schema, botocore's, and a mock."""

import copy
from pathlib import Path

import boto3
import botocore.session
import botocore.validate
import jsonschema
import pytest
import ray
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws import utils
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

ROOT = Path(__file__).parents[1]


@pytest.fixture
def cluster():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """An AWS account in this process, with the instance profiles that the file asks for."""
    monkeypatch.setenv("HOME", str(tmp_path))  # bootstrap_aws writes a new key to ~/.ssh
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for cache in (utils.resource_cache, utils.client_cache):
        cache.cache_clear()
    with mock_aws():
        iam = boto3.client("iam", region_name="us-west-2")
        for name in ("t2ipal-head", "t2ipal-worker"):
            iam.create_instance_profile(InstanceProfileName=name)
        yield
    for cache in (utils.resource_cache, utils.client_cache):
        cache.cache_clear()


def check_schema(cluster):
    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    return prepared


def check_node_configs(cluster):
    """Every node_config as the request that Ray makes of it; the schema takes any key there."""
    model = botocore.session.get_session().get_service_model("ec2")
    shape = model.operation_model("RunInstances").input_shape
    for name, node_type in cluster["available_node_types"].items():
        request = {**node_type["node_config"], "MinCount": 1, "MaxCount": 1}
        report = botocore.validate.ParamValidator().validate(request, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"


def check_launch(cluster):
    """One instance of every type, bootstrapped and created by Ray's own provider."""
    config = bootstrap_aws(check_schema(cluster))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    instances = {}
    for name, node_type in config["available_node_types"].items():
        kind = "head" if name == config["head_node_type"] else "worker"
        tags = {TAG_RAY_NODE_KIND: kind, TAG_RAY_USER_NODE_TYPE: name}
        (instances[name],) = provider.create_node(node_type["node_config"], tags, 1).values()
    return instances


def test_schema(cluster, aws):
    check_schema(cluster)


def test_node_configs(cluster):
    check_node_configs(cluster)


def test_launch(cluster, aws):
    instances = check_launch(cluster)
    spot = {name for name, made in instances.items() if made.instance_lifecycle == "spot"}
    assert spot == {"gpu_worker"}
    profiles = {
        name: made.iam_instance_profile["Arn"].split("/")[-1] for name, made in instances.items()
    }
    assert profiles == {
        "head": "t2ipal-head",
        "cpu_worker": "t2ipal-worker",
        "gpu_worker": "t2ipal-worker",
    }


def test_a_misspelt_key_fails_the_schema(cluster, aws):
    cluster["idle_timeout_minuts"] = 5
    with pytest.raises(jsonschema.ValidationError, match=r"idle_timeout_minuts"):
        check_schema(cluster)


def test_a_misspelt_node_key_fails_botocore(cluster, aws):
    node_config = cluster["available_node_types"]["gpu_worker"]["node_config"]
    node_config["InstanceMarketOption"] = node_config.pop("InstanceMarketOptions")
    check_schema(cluster)  # does not see it
    with pytest.raises(AssertionError, match=r'gpu_worker: Unknown .*"InstanceMarketOption"'):
        check_node_configs(cluster)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("MetadataOptions.HttpPutResponseHopLimit", "2"),
        ("BlockDeviceMappings.0.Ebs.VolumeSiz", 150),
        ("IamInstanceProfile.name", "t2ipal-head"),
    ],
)
def test_a_wrong_node_value_fails_botocore(cluster, path, value):
    *parents, last = path.split(".")
    place = cluster["available_node_types"]["head"]["node_config"]
    for name in parents:
        place = place[int(name) if isinstance(place, list) else name]
    place[last] = value
    with pytest.raises(AssertionError, match=r"head: "):
        check_node_configs(cluster)


def test_a_misspelt_profile_fails_the_launch(cluster, aws):
    node_config = cluster["available_node_types"]["cpu_worker"]["node_config"]
    node_config["IamInstanceProfile"]["Name"] = "t2ipal-wroker"
    check_schema(cluster)
    check_node_configs(cluster)  # neither sees it
    with pytest.raises(NodeLaunchException, match=r"t2ipal-wroker"):
        check_launch(cluster)


def test_a_zone_of_another_region_fails_the_launch(cluster, aws):
    cluster["provider"]["availability_zone"] = "us-east-1a"
    with pytest.raises(Exception, match=r"No usable subnets"):
        check_launch(cluster)


def test_every_node_type_has_what_it_must_have(cluster):
    for node_type in cluster["available_node_types"].values():
        node_config = node_type["node_config"]
        image = node_config["ImageId"]
        assert image.startswith(("ami-", "resolve:ssm:/aws/service/deeplearning/ami/x86_64/"))
        assert node_config["IamInstanceProfile"]["Name"]
        metadata = node_config["MetadataOptions"]
        assert (metadata["HttpTokens"], metadata["HttpPutResponseHopLimit"]) == ("required", 2)
        assert all(disk["Ebs"]["Encrypted"] for disk in node_config["BlockDeviceMappings"])


def test_the_head_runs_no_work_and_shows_its_dashboard_to_itself_only(cluster):
    assert cluster["available_node_types"][cluster["head_node_type"]]["resources"] == {"CPU": 0}
    start = " ".join(cluster["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "0.0.0.0" not in (ROOT / "cluster.yaml").read_text()


def test_workers_are_limited_and_only_gpus_are_spot(cluster):
    types = cluster["available_node_types"]
    workers = {name: types[name] for name in types if name != cluster["head_node_type"]}
    assert all(worker["min_workers"] == 0 < worker["max_workers"] for worker in workers.values())
    assert cluster["max_workers"] == sum(worker["max_workers"] for worker in workers.values())
    assert 0 < cluster["idle_timeout_minutes"] <= 10
    market = {name: "InstanceMarketOptions" in workers[name]["node_config"] for name in workers}
    assert market == {"cpu_worker": False, "gpu_worker": True}
    assert workers["gpu_worker"]["resources"]["GPU"] >= 1
    assert cluster["provider"]["cache_stopped_nodes"] is False


def test_tokens_are_on_and_reach_every_node(cluster):
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"


def test_images_are_of_the_ray_that_is_tested_here(cluster):
    images = [cluster["docker"]["image"]]
    for node_type in cluster["available_node_types"].values():
        images += [node_type["docker"]["worker_image"]] if "docker" in node_type else []
    assert len(images) == 2
    assert all(image.startswith(f"rayproject/ray:{ray.__version__}-py311") for image in images)


def test_mounted_files_are_in_the_repository(cluster):
    for local in cluster["file_mounts"].values():
        assert local.startswith("~") or (ROOT / local).exists(), local
