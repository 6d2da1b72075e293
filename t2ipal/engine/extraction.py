"""Ray Data around `t2ipal.extraction`: feature shards computed by a pool of actors."""

import dataclasses
import os
from typing import Any, cast

import ray
import ray.data
from tqdm import tqdm

from t2ipal.extraction import FeatureExtractor, FeatureTask, feature_folder, feature_tasks
from t2ipal.features import BackboneConfig, load_backbone
from t2ipal.store import Store


class _Actor:
    """Loads the backbone once; then computes one shard after another."""

    def __init__(self, store: Store, config: BackboneConfig, num_threads: int):
        import torch

        torch.set_num_threads(num_threads)
        self.extract = FeatureExtractor(store, load_backbone(config))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"rows": self.extract(FeatureTask(row["kind"], row["name"]))}


def extract_run(
    store: Store,
    config: BackboneConfig,
    *,
    num_workers: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    progress: bool = False,
) -> str:
    """Computes and stores every missing feature shard of a run; returns their folder in the store.

    Args:
        store: of a finished synthesis.
        config: of the backbone; it is loaded here once (to name the folder) and in every worker.
        num_workers: actors; None: as many as the cluster holds, at most one a shard; 0: none, all
            is computed in this process without Ray.
        cpus_per_worker: cores, and threads, of each.
        gpus_per_worker: GPUs of each; None: 1 where the backbone's device is one, else 0.
        progress: show a bar of shards.
    """
    here = config if num_workers == 0 else dataclasses.replace(config, device="cpu")
    backbone = load_backbone(here)
    folder = feature_folder(backbone)
    tasks = feature_tasks(store, folder)
    if not tasks:
        return folder
    with tqdm(total=len(tasks), desc="features", unit="shard", disable=not progress) as bar:
        if num_workers == 0:
            extract = FeatureExtractor(store, backbone)
            for task in tasks:
                extract(task)
                bar.update()
            return folder
        resources = ray.cluster_resources()
        gpus, num_gpus = gpus_per_worker, resources.get("GPU", 0)
        if gpus is None:
            gpus = float(config.device != "cpu" and num_gpus > 0)
        room = int(resources.get("CPU", os.cpu_count() or 1) // cpus_per_worker)
        room = min(room, int(num_gpus // gpus)) if gpus > 0 else room
        ray.data.DataContext.get_current().enable_progress_bars = False
        size = min(num_workers or max(room, 1), len(tasks))
        rows = [{"kind": task.kind, "name": task.name} for task in tasks]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            cast(Any, _Actor),
            fn_constructor_args=(store, config, cpus_per_worker),
            compute=ray.data.ActorPoolStrategy(size=size),
            num_cpus=cpus_per_worker,
            num_gpus=gpus,
        )
        for _ in dataset.iter_rows():
            bar.update()
    return folder
