"""cluster.yaml, as far as it can be checked without AWS: Ray's schema, botocore's, and a mock."""

import copy
import re
import shlex
import subprocess
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
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE
from ray.autoscaler.v2 import autoscaler
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

from t2ipal.commands import watch_spot
from t2ipal.commands.main import COMMANDS
from t2ipal.commands.running import parse
from t2ipal.engine.capacity import AWSMachines

ROOT = Path(__file__).parents[1]
SPOT = ("gpu_l4", "gpu_l40s", "gpu_a10g")
"""By priority."""


@pytest.fixture
def cluster():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """An AWS account in this process, with the instance profiles that the file asks for."""
    monkeypatch.setenv("HOME", str(tmp_path))  # bootstrap_aws writes a new key to ~/.ssh
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(autoscaler, "CloudResourceMonitor", None)  # as it was, after the test
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
    AutoscalingConfig(config, skip_content_hash=True)  # as the head reads it
    provider = AWSMachines(config["provider"], config["cluster_name"])
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
    assert spot == set(SPOT)
    profiles = {
        name: made.iam_instance_profile["Arn"].split("/")[-1] for name, made in instances.items()
    }
    assert profiles.pop("head") == "t2ipal-head"
    assert profiles == dict.fromkeys(("cpu", *SPOT, "gpu_on_demand"), "t2ipal-worker")


def test_gpu_types_are_equal_to_the_autoscaler(cluster, aws):
    """With what Ray adds of each: it would never give up a type that it finds the better fit."""
    filled = AWSMachines.fillout_available_node_types_resources(check_schema(cluster))
    types = [filled["available_node_types"][name]["resources"] for name in (*SPOT, "gpu_on_demand")]
    assert all((each["CPU"], each["GPU"]) == (4, 1) for each in types)
    assert len({len(each) for each in types}) == 1
    assert all(each["memory"] >= 8 * 2**30 for each in types)


def test_a_misspelt_key_fails_the_schema(cluster, aws):
    cluster["idle_timeout_minuts"] = 5
    with pytest.raises(jsonschema.ValidationError, match=r"idle_timeout_minuts"):
        check_schema(cluster)


def test_a_misspelt_node_key_fails_botocore(cluster, aws):
    node_config = cluster["available_node_types"]["gpu_l4"]["node_config"]
    node_config["InstanceMarketOption"] = node_config.pop("InstanceMarketOptions")
    check_schema(cluster)  # does not see it
    with pytest.raises(AssertionError, match=r'gpu_l4: Unknown .*"InstanceMarketOption"'):
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
    node_config = cluster["available_node_types"]["cpu"]["node_config"]
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
        assert re.fullmatch(r"ami-[0-9a-f]{17}", node_config["ImageId"])
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
    assert 0 < cluster["idle_timeout_minutes"] <= 10
    assert all(0 < worker.get("idle_timeout_s", 60) <= 600 for worker in workers.values())
    market = {name for name in workers if "InstanceMarketOptions" in workers[name]["node_config"]}
    assert market == set(SPOT)
    assert cluster["provider"]["cache_stopped_nodes"] is False


def test_spot_comes_before_on_demand(cluster):
    """Of three families at least, and never on demand because spot has reached its limit."""
    types = cluster["available_node_types"]
    gpus = {name: node_type for name, node_type in types.items() if "priority" in node_type}
    assert sorted(gpus, key=lambda name: -gpus[name]["priority"]) == [*SPOT, "gpu_on_demand"]
    families = {gpus[name]["node_config"]["InstanceType"].split(".")[0] for name in SPOT}
    assert len(families) == 3
    assert sum(gpus[name]["max_workers"] for name in SPOT) >= cluster["max_workers"]
    assert all(gpus[name]["resources"] == gpus["gpu_l4"]["resources"] for name in gpus)


def test_tokens_are_on_and_reach_every_node(cluster):
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}


def test_one_region_and_one_account(cluster):
    text = (ROOT / "cluster.yaml").read_text()
    region = cluster["provider"]["region"]
    assert set(re.findall(r"\b[a-z]{2}-[a-z]+-\d", text)) == {region}
    assert f"--env AWS_DEFAULT_REGION={region}" in cluster["docker"]["run_options"]
    registry = cluster["docker"]["image"].split("/")[0]
    assert re.fullmatch(rf"\d{{12}}\.dkr\.ecr\.{region}\.amazonaws\.com", registry)
    assert cluster["initialization_commands"][-1].endswith(registry)


def test_the_image_has_a_tag_of_this_ray(cluster):
    assert f":ray{ray.__version__}-" in cluster["docker"]["image"]
    assert not any("docker" in node_type for node_type in cluster["available_node_types"].values())


def test_nothing_is_installed_on_a_node(cluster):
    setup = ("setup_commands", "head_setup_commands", "worker_setup_commands")
    assert not any(cluster[name] for name in setup)


def test_shell_commands_can_be_read_by_a_shell(cluster):
    for name in cluster:
        for command in cluster[name] if name.endswith("_commands") else ():
            subprocess.run(["bash", "-n", "-c", command], check=True)


def test_every_worker_watches_for_its_spot_notice(cluster):
    *_, start, watch = cluster["worker_start_ray_commands"]
    assert "ray start --address" in start
    words = shlex.split(watch)
    assert words[:3] == ["setsid", "--fork", "t2ipal"] and words[3] in COMMANDS
    parse(watch_spot.Options, words[4 : words.index(">>")], None)
    assert words[words.index(">>") + 1].startswith("/tmp/ray/session_latest/logs/")


def test_large_files_lie_on_the_local_disk(cluster):
    folder = next(iter(re.findall(r"install -d .* (\S+)", cluster["initialization_commands"][1])))
    options = cluster["docker"]["run_options"]
    assert f"--volume {folder}:/tmp" in options and "--env XDG_CACHE_HOME=/tmp/cache" in options
