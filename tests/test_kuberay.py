"""kuberay/: each field is one of the CRDs, the three clusters are equal, no pod has more rights
than it needs."""

import functools
import gzip
import json
import shlex
from pathlib import Path

import jsonschema
import pytest
import tyro
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

ROOT = Path(__file__).parents[1]
SCHEMAS = ROOT.parent / "shared" / "data" / "kuberay"
KINDS = {"RayCluster": (), "RayJob": ("rayClusterSpec",), "RayService": ("rayClusterConfig",)}
"""Kind -> where in its `spec` the cluster is."""
SPOT = ["gpu-l4", "gpu-l40s", "gpu-a10g"]
"""By priority."""


def manifest(kind):
    return yaml.safe_load((ROOT / "kuberay" / f"{kind.lower()}.yaml").read_text())


def cluster_of(kind):
    spec = manifest(kind)["spec"]
    for key in KINDS[kind]:
        spec = spec[key]
    return spec


def strict(schema):
    """The schema of a CRD, which takes no field that it does not know."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if closed.pop("x-kubernetes-int-or-string", False):
        return {"type": ["integer", "string"]}
    fields = schema.get("properties")
    if isinstance(fields, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed


@functools.cache
def validator(kind):
    path = SCHEMAS / f"ray.io_{kind.lower()}s.yaml.gz"
    if not path.exists():
        pytest.skip(f"The schemas of KubeRay's CRDs are not in {SCHEMAS}.")
    # A megabyte: the loader in C takes a tenth of the time.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition = yaml.load(gzip.decompress(path.read_bytes()), loader)
    (version,) = (each for each in definition["spec"]["versions"] if each["name"] == "v1")
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # as Kubernetes has it, not in the CRD
    return jsonschema.Draft7Validator(schema)


def pods(cluster):
    """The pod of the head and of each group of workers."""
    yield cluster["headGroupSpec"]["template"]["spec"]
    for group in cluster["workerGroupSpecs"]:
        yield group["template"]["spec"]


@pytest.mark.parametrize("kind", KINDS)
def test_schema(kind):
    validator(kind).validate(manifest(kind))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.enableInTreeAutoscalin", True),
        ("spec.workerGroupSpecs.1.priorty", 3),
        ("spec.workerGroupSpecs.1.maxReplicas", "8"),
        ("spec.headGroupSpec.template.spec.automountServiceAcountToken", False),
        ("spec.headGroupSpec.template.spec.containers.0.securityContext.privilged", False),
        ("spec.authOptions.mode", "tokens"),
    ],
)
def test_a_wrong_field_fails_the_schema(path, value):
    made = manifest("RayCluster")
    *parents, last = path.split(".")
    place = made
    for name in parents:
        place = place[int(name) if isinstance(place, list) else name]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        validator("RayCluster").validate(made)


@pytest.mark.parametrize("kind", KINDS)
def test_one_cluster_three_times(kind):
    assert cluster_of(kind) == cluster_of("RayCluster")


def test_the_same_machines_as_on_aws():
    aws = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    types = aws["available_node_types"]
    groups = {group["groupName"]: group for group in cluster_of("RayCluster")["workerGroupSpecs"]}
    assert {name.replace("_", "-") for name in types} - {"head"} == {*groups}
    for name, group in groups.items():
        node_type = types[name.replace("-", "_")]
        assert group.get("priority") == node_type.get("priority")
        assert group.get("idleTimeoutSeconds") == node_type.get("idle_timeout_s")
        assert group["minReplicas"] == group["replicas"] == 0
        assert group["maxReplicas"] == node_type["max_workers"]
        selector = group["template"]["spec"]["nodeSelector"]
        spot = "InstanceMarketOptions" in node_type["node_config"]
        assert selector["karpenter.sh/capacity-type"] == ("spot" if spot else "on-demand")
        if "GPU" in node_type["resources"]:
            asked = node_type["node_config"]["InstanceType"]
            assert selector["node.kubernetes.io/instance-type"] == asked


def test_groups_are_equal_to_the_autoscaler_but_for_their_priority():
    config = AutoscalingConfig(_derive_autoscaling_config_from_ray_cr(manifest("RayCluster")))
    types = config.get_node_type_configs()
    gpus = {name: each for name, each in types.items() if each.resources.get("GPU")}
    assert sorted(gpus, key=lambda name: -gpus[name].priority) == [*SPOT, "gpu-on-demand"]
    assert all(each.resources == gpus["gpu-l4"].resources for each in gpus.values())
    (head,) = (each for name, each in types.items() if "head" in name)
    assert head.resources["CPU"] == 0


def test_on_demand_has_its_turn():
    """Before the first spot group is taken for available again."""
    env = {each["name"]: int(each["value"]) for each in autoscaler("RayCluster")["env"]}
    timeout = env["RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S"]
    assert env["RAY_AUTOSCALER_AVAILABILITY_RECOVERY_S"] > len(SPOT) * timeout


def autoscaler(kind):
    return cluster_of(kind)["autoscalerOptions"]


def test_every_pod_is_confined():
    job = manifest("RayJob")["spec"]["submitterPodTemplate"]["spec"]
    for pod in (*pods(cluster_of("RayCluster")), job):
        assert pod["automountServiceAccountToken"] is False
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & {*pod}
        assert not any("hostPath" in volume for volume in pod.get("volumes", ()))
        for container in pod["containers"]:
            check_container(container)
    check_container(autoscaler("RayCluster"))


def check_container(container):
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    resources = container["resources"]
    assert resources["limits"] == resources["requests"] and {"cpu", "memory"} <= {
        *resources["limits"]
    }


def test_only_the_autoscaler_gets_a_token_of_kubernetes():
    head, *workers = pods(cluster_of("RayCluster"))
    tokens = [
        volume["name"] for volume in head["volumes"] if "serviceAccountToken" in json.dumps(volume)
    ]
    assert tokens == [mount["name"] for mount in autoscaler("RayCluster")["volumeMounts"]]
    mounted = {mount["name"] for each in head["containers"] for mount in each["volumeMounts"]}
    assert not mounted & {*tokens}
    assert not any("serviceAccountToken" in json.dumps(worker["volumes"]) for worker in workers)


def test_requests_need_the_token_of_ray():
    assert all(cluster_of(kind)["authOptions"] == {"mode": "token"} for kind in KINDS)


def test_nobody_outside_reaches_a_pod():
    made = [*yaml.safe_load_all((ROOT / "kuberay" / "access.yaml").read_text())]
    (policy,) = (each["spec"] for each in made if each["kind"] == "NetworkPolicy")
    assert policy["podSelector"] == {} and policy["policyTypes"] == ["Ingress", "Egress"]
    assert all(rule["from"] for rule in policy["ingress"])
    (namespace,) = (each for each in made if each["kind"] == "Namespace")
    assert "restricted" in namespace["metadata"]["labels"].values()
    accounts = {each["metadata"]["name"] for each in made if each["kind"] == "ServiceAccount"}
    assert accounts == {pod["serviceAccountName"] for pod in pods(cluster_of("RayCluster"))}


def test_the_version_is_that_of_the_image():
    for kind in KINDS:
        cluster = cluster_of(kind)
        images = {each["image"] for pod in pods(cluster) for each in pod["containers"]}
        assert len(images) == 1 and f":ray{cluster['rayVersion']}-" in images.pop()


def test_the_job_has_the_options_of_the_command():
    from t2ipal.commands import synthesize

    program, command, *words = shlex.split(manifest("RayJob")["spec"]["entrypoint"])
    assert (program, command) == ("t2ipal", "synthesize")
    tyro.cli(synthesize.Options, args=words)
