"""The rights in cluster/ against the requests of jobs and of Ray: all of them, and no others."""

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

import boto3
import botocore.client
import pytest
import yaml
from botocore.stub import Stubber
from moto import mock_aws
from ray.autoscaler._private.aws import node_provider, utils
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_NODE_STATUS, TAG_RAY_USER_NODE_TYPE
from ray.autoscaler.v2 import autoscaler
from small_recognizer import write_photographs
from tiny_clip import write_tiny_clip

from t2ipal.cloud.quotas import machine_kinds, uses_of
from t2ipal.commands import predict, synthesize, train
from t2ipal.doctor.places import check_place
from t2ipal.engine.capacity import AWSMachines
from t2ipal.store import Store, buckets
from t2ipal.synthesis.rendering import RenderingSynthesizer

ROOT = Path(__file__).parents[1]
ACCOUNT, REGION, BUCKET = "123456789012", "us-west-2", "t2ipal-123456789012"
IN_EC2 = f"arn:aws:ec2:{REGION}:{ACCOUNT}:"
CLUSTER_TAG = "ray-cluster-name"
OPERATORS = {
    "StringEquals": lambda value, pattern: value == pattern,
    "ArnEquals": lambda value, pattern: value == pattern,
    "StringLikeIfExists": lambda value, pattern: value is None or fnmatchcase(value, pattern),
}
"""Of conditions; a value that the request does not have is None."""
S3_ACTIONS = {
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListObjectsV2": "ListBucket",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "ListMultipartUploads": "ListBucketMultipartUploads",
}
"""The right that an operation asks for, where their names differ."""
NO_JOB = {"ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}
"""Asked for by the commands of cluster.yaml, before a job starts."""


def listed(value):
    return value if isinstance(value, list) else [value]


def statements(*names):
    for name in names:
        yield from json.loads((ROOT / "cluster" / f"{name}.json").read_text())["Statement"]


def allowed(policy, action, resource, context=()):
    """Whether a statement allows the request; none here denies."""
    return any(
        action in listed(each["Action"])
        and any(fnmatchcase(resource, pattern) for pattern in listed(each["Resource"]))
        and all(
            any(OPERATORS[operator](dict(context).get(key), value) for value in listed(values))
            for operator, keys in each.get("Condition", {}).items()
            for key, values in keys.items()
        )
        for each in policy
    )


@pytest.fixture
def requests(monkeypatch, tmp_path):
    """(service, operation, parameters) of each request to an AWS in this process, as they come."""
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes a new key to ~/.ssh
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    made, call = [], botocore.client.BaseClient._make_api_call

    def record(client, operation, parameters):
        made.append((client.meta.service_model.service_name, operation, parameters))
        return call(client, operation, parameters)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", record)
    for cache in (utils.resource_cache, utils.client_cache):
        cache.cache_clear()
    with mock_aws():
        yield made
    for cache in (utils.resource_cache, utils.client_cache):
        cache.cache_clear()


def s3_rights(requests):
    """(action, resource, context) that each request to S3 asks for."""
    for service, operation, parameters in requests:
        assert service == "s3", operation
        resource, context = f"arn:aws:s3:::{parameters['Bucket']}", {}
        if "Key" in parameters:
            resource += f"/{parameters['Key']}"
        elif operation == "ListObjectsV2":
            context["s3:prefix"] = parameters["Prefix"]
        yield f"s3:{S3_ACTIONS.get(operation, operation)}", resource, context


@pytest.fixture
def jobs_ran(requests, monkeypatch, tmp_path):
    """What the jobs ask of S3: synthesis, training, prediction and doctor, on drawn scenes."""
    boto3.client("s3").create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    data = Store(f"s3://{BUCKET}/data")
    data.write("captions.txt", b"A dog runs beside a red car.\nTwo cats sleep on a sofa.\n")
    write_photographs(Store(f"{data.uri}/photographs"))
    requests.clear()
    monkeypatch.setattr("t2ipal.diffusion.synthesizer.Synthesizer", RenderingSynthesizer)
    monkeypatch.setattr("t2ipal.diffusion.identity.pinned", lambda config, model: config)
    monkeypatch.setattr(buckets, "MULTIPART_BYTES", 10_000)
    write_tiny_clip(tmp_path / "clip")
    run, clip = f"s3://{BUCKET}/runs/first", str(tmp_path / "clip")
    captions = ["--captions", f"{data.uri}/captions.txt", "--vocabulary", "voc2007"]
    synthesize.main([*captions, "--output", run, "--images-per-caption", "2", "--in-process"])
    words = ["--run", run, "--model", clip, "--methods", "t2ipal", "--seeds", "0"]
    train.main([*words, "--num-workers", "0", "--set", "training.num_epochs=1"])
    recognizer = ["--recognizer", f"{run}/train/t2ipal-seed0", "--in-process"]
    images = ["--images", f"{data.uri}/photographs"]
    predict.main([*recognizer, *images, "--output", f"{run}/predictions.jsonl"])
    Store(run).abort_uploads(min_age_s=-60)
    boto3.client("s3").create_multipart_upload(Bucket=BUCKET, Key="runs/first/dead")
    Store(run).abort_uploads(min_age_s=-60)
    assert {found.state for found in check_place(Store(run), REGION)} == {"ok"}
    return [*s3_rights(requests)]


def test_workers_may_do_what_jobs_do_and_nothing_else(jobs_ran):
    policy = [*statements("worker")]
    refused = [right for right in jobs_ran if not allowed(policy, *right)]
    assert not refused
    given = {action for each in policy for action in listed(each["Action"])}
    assert given - NO_JOB == {action for action, _, _ in jobs_ran}
    assert not any(set("*?") & set(action) for action in given)


@pytest.mark.parametrize(
    ("action", "resource", "context"),
    [
        ("s3:GetObject", "another/runs/first/settings.json", {}),
        ("s3:GetObject", f"{BUCKET}/private/letter.txt", {}),
        ("s3:PutObject", f"{BUCKET}/data/captions.txt", {}),
        ("s3:DeleteObject", f"{BUCKET}/data/captions.txt", {}),
        ("s3:DeleteBucket", BUCKET, {}),
        ("s3:PutBucketPolicy", BUCKET, {}),
        ("s3:ListBucket", BUCKET, {"s3:prefix": "private/"}),
        ("s3:ListBucket", BUCKET, {"s3:prefix": ""}),
        ("s3:ListBucket", "another", {"s3:prefix": "runs/"}),
        ("s3:ListAllMyBuckets", "*", {}),
    ],
)
def test_workers_may_not(action, resource, context):
    assert not allowed(statements("worker"), action, f"arn:aws:s3:::{resource}", context)


def test_workers_start_nothing():
    actions = {action for each in statements("worker") for action in listed(each["Action"])}
    assert {action.split(":")[0] for action in actions} == {"s3", "ecr"}


def ec2_rights(requests):
    """(action, resource, context) that each request to EC2, and for its quotas, asks for."""
    tagged = {f"ec2:ResourceTag/{CLUSTER_TAG}": "t2ipal"}
    for service, operation, parameters in requests:
        if service == "service-quotas":
            yield f"servicequotas:{operation}", "*", {}
            continue
        assert service == "ec2", operation
        if operation.startswith("Describe"):
            yield f"ec2:{operation}", "*", {}
        elif operation == "RunInstances":
            yield from launch_rights(parameters)
        elif operation == "CreateKeyPair":
            yield f"ec2:{operation}", f"{IN_EC2}key-pair/{parameters['KeyName']}", {}
        elif operation == "CreateSecurityGroup":
            yield f"ec2:{operation}", f"{IN_EC2}vpc/{parameters['VpcId']}", {}
            yield f"ec2:{operation}", f"{IN_EC2}security-group/*", {}
            yield "ec2:CreateTags", f"{IN_EC2}security-group/*", {"ec2:CreateAction": operation}
        elif operation == "AuthorizeSecurityGroupIngress":
            group = f"{IN_EC2}security-group/{parameters['GroupId']}"
            yield f"ec2:{operation}", group, tagged
        else:  # of instances that the cluster has tagged
            for instance in parameters.get("InstanceIds") or parameters["Resources"]:
                yield f"ec2:{operation}", f"{IN_EC2}instance/{instance}", tagged


def launch_rights(parameters):
    """A launch needs a right on each thing that an instance is made of."""
    profile = parameters["IamInstanceProfile"]["Name"]
    (tags,) = (tags["Tags"] for tags in parameters["TagSpecifications"])
    context = {
        "ec2:InstanceType": parameters["InstanceType"],
        "ec2:MetadataHttpTokens": parameters["MetadataOptions"]["HttpTokens"],
        "ec2:InstanceProfile": f"arn:aws:iam::{ACCOUNT}:instance-profile/{profile}",
        **{f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in tags},
    }
    yield "ec2:RunInstances", f"{IN_EC2}instance/*", context
    yield "ec2:CreateTags", f"{IN_EC2}instance/*", {"ec2:CreateAction": "RunInstances"}
    yield "ec2:RunInstances", f"arn:aws:ec2:{REGION}::image/{parameters['ImageId']}", {}
    made_of = [f"subnet/{parameters['SubnetId']}", f"key-pair/{parameters['KeyName']}"]
    made_of += [f"security-group/{each}" for each in parameters["SecurityGroupIds"]]
    made_of += ["volume/*", "network-interface/*"]
    made_of += ["spot-instances-request/*"] if "InstanceMarketOptions" in parameters else []
    for resource in made_of:
        yield "ec2:RunInstances", IN_EC2 + resource, {}
    role = f"arn:aws:iam::{ACCOUNT}:role/{profile}"
    yield "iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"}


@pytest.fixture
def ray_ran(requests, monkeypatch):
    """What Ray asks of EC2: on the user's machine for the head, there for a worker of each type."""
    monkeypatch.setattr(node_provider, "TAG_BATCH_DELAY", 0)
    monkeypatch.setattr(autoscaler, "CloudResourceMonitor", None)  # as it was, after the test
    for name in ("t2ipal-head", "t2ipal-worker"):
        boto3.client("iam").create_instance_profile(InstanceProfileName=name)
    requests.clear()
    config = bootstrap_aws(prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text())))
    provider = AWSMachines(config["provider"], config["cluster_name"])
    types, head = config["available_node_types"], config["head_node_type"]
    live_once(provider, head, types[head], "head")
    launcher = [*ec2_rights(requests)]
    requests.clear()
    for name in types.keys() - {head}:
        live_once(provider, name, types[name], "worker")
    return launcher, [*ec2_rights(requests)]


def live_once(provider, name, node_type, kind):
    tags = {TAG_RAY_NODE_KIND: kind, TAG_RAY_USER_NODE_TYPE: name}
    node_config = node_type["node_config"]
    (node,) = provider.create_node_with_resources_and_labels(node_config, tags, 1, {}, {})
    assert provider.non_terminated_nodes({}) == [node] and provider.is_running(node)
    provider.set_node_tags(node, {TAG_RAY_NODE_STATUS: "up-to-date"})
    provider.terminate_nodes([node])
    assert not provider.non_terminated_nodes({})


@pytest.fixture
def doctor_ran(requests):
    """What the doctor asks of AWS beside S3: where the user is, and on the head as a job."""
    kinds = machine_kinds(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    types = [
        {"InstanceType": kind.instance_type, "VCpuInfo": {"DefaultVCpus": 4}} for kind in kinds
    ]
    clients = boto3.client("service-quotas"), boto3.client("ec2")
    # moto has no quotas of EC2, and takes seconds to read all types of machines.
    with Stubber(clients[0]) as quotas, Stubber(clients[1]) as ec2:
        ec2.add_response("describe_instance_types", {"InstanceTypes": types})
        for _ in {kind.quota for kind in kinds}:
            quotas.add_response("get_service_quota", {"Quota": {"Value": 0.0}})
        uses_of(kinds, 12, *clients)
    asked = [*ec2_rights(requests)]
    requests.clear()
    return asked


def test_the_launcher_and_the_head_may_do_what_is_asked_and_nothing_else(doctor_ran, ray_ran):
    # Ray, too, looks at all types of machines: tests/test_cluster.py does.
    for name, asked in zip(("launcher", "head"), ray_ran):
        policy, asked = [*statements(name)], [*asked, *doctor_ran]
        assert not [right for right in asked if not allowed(policy, *right)], name
        given = {action for each in policy for action in listed(each["Action"])}
        assert given == {action for action, _, _ in asked}, name


def test_each_launches_machines_of_this_cluster_only(ray_ran):
    for name, asked, another in zip(("launcher", "head"), ray_ran, ("worker", "head")):
        policy = [*statements(name)]
        action, resource, right = next(each for each in asked if each[0] == "ec2:RunInstances")
        assert allowed(policy, action, resource, right)
        for key, value in {
            "ec2:InstanceType": "p5.48xlarge",
            "ec2:MetadataHttpTokens": "optional",
            "ec2:InstanceProfile": f"arn:aws:iam::{ACCOUNT}:instance-profile/t2ipal-{another}",
            f"aws:RequestTag/{CLUSTER_TAG}": "another",
        }.items():
            assert not allowed(policy, action, resource, {**right, key: value}), key
        role, service = (
            f"arn:aws:iam::{ACCOUNT}:role/",
            {"iam:PassedToService": "ec2.amazonaws.com"},
        )
        assert not allowed(policy, "iam:PassRole", f"{role}t2ipal-{another}", service)
        for action in ("ec2:TerminateInstances", "ec2:CreateTags"):
            others = {f"ec2:ResourceTag/{CLUSTER_TAG}": "another"}
            assert not allowed(policy, action, f"{IN_EC2}instance/i-1", others)


def test_policies_and_cluster_name_the_same_things():
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    types = cluster["available_node_types"]
    head = types.pop(cluster["head_node_type"])
    for name, launched in (("launcher", [head]), ("head", types.values())):
        (launch,) = (each for each in statements(name) if each["Sid"].startswith("Launch"))
        equal = launch["Condition"]["StringEquals"]
        assert equal[f"aws:RequestTag/{CLUSTER_TAG}"] == cluster["cluster_name"]
        asked = {node_type["node_config"]["InstanceType"] for node_type in launched}
        assert {*listed(equal["ec2:InstanceType"])} == asked
    names = ("worker", "head", "launcher")
    texts = [(ROOT / "cluster" / f"{name}.json").read_text() for name in names]
    regions = set(re.findall(r"arn:aws:(?:ec2|ecr):([\w-]+):", "".join(texts)))
    assert regions == {cluster["provider"]["region"]}
    repository = cluster["docker"]["image"].partition("/")[2].partition(":")[0]
    assert f":repository/{repository}" in texts[0]
