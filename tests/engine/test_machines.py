from t2ipal.engine.machines import alive_machines, node_type


def test_types_are_those_of_cluster_yaml():
    assert [node_type(name) for name in ("gpu-l4", "gpu_on_demand", "headgroup", "")] == [
        "gpu_l4",
        "gpu_on_demand",
        "head",
        "",
    ]


def test_alive_machines(ray_session):
    assert list(alive_machines("local").values()) == ["local"]
