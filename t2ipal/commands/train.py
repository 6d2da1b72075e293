"""Features of a synthesized run, then prompts and adapters trained on them with Ray Train.

    python jobs/train.py --run runs/coco --methods tai_dpt t2ipal --seeds 0 1 2

The best setting that jobs/tune.py found, on all captions and images:

    python jobs/train.py --run runs/coco --from-search runs/coco/search

Any setting of the method or its training can be changed by its dotted name:

    python jobs/train.py --run runs/coco --set method.residual_ratio=0.5 training.lr=0.002

The same command again goes on where it was left. The last line of the output is a JSON summary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from t2ipal.commands.running import FLAT, finish, parse, remark, session
from t2ipal.config import parse_changes, require
from t2ipal.engine.config import RayConfig, TrainingGroup
from t2ipal.engine.workers import extract, training_workers
from t2ipal.features.config import BackboneConfig, FeatureAccess
from t2ipal.places import NameOrUri, SharedUri
from t2ipal.pools import PoolConfig
from t2ipal.store import Store, read_manifest

DEFAULT_METHODS = ("zsclip", "tai_dpt", "t2ipal")


@dataclass(frozen=True)
class Options:
    """Trains recognizers on a run's captions and synthetic images."""

    run: SharedUri
    """Folder that jobs/synthesize.py filled: a local path, or s3://bucket/prefix."""
    output: SharedUri | None = None
    """Folder or s3://bucket/prefix for the recognizers; None: `run`/train, or `train` in the folder
    of the search."""
    from_search: SharedUri | None = None
    """Folder of a search (jobs/tune.py) whose best trial says method, data set, settings and
    images; --set still changes what it says."""
    images: str | None = None
    """A choice among the images by its name (jobs/choose.py); None: all of them."""
    methods: tuple[str, ...] | None = None
    """Any of the recipes: zsclip, zsclip_local, class_concept, tai, tai_dpt, tai_dpt_adapter,
    t2ipal, t2ipal_no_adapter, t2ipal_images_only, ...; None: zsclip, tai_dpt and t2ipal, or that of
    the search."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the context's start and of the order of captions; one recognizer each."""
    data_set: str | None = None
    """Whose schedule to take, by a test set's name: pictovoc, voc2007, coco2014, nuswide, ...
    None: pictovoc, or that of the search."""
    set: tuple[str, ...] = ()
    """Changes as name=value with dotted names, e.g. method.sharpness=3.5; each holds for all
    methods that have the option."""
    template_captions: bool = False
    """Learn also from 89 template captions of each class ("a photo of a dog."), as TaI-DPT does: in
    short for --set training.template_captions=true."""
    unnamed_classes: Literal["train", "refuse"] = "train"
    """What becomes of a class that no caption names: `train` it from its name alone, or `refuse`
    to train."""
    normalization: Literal["none", "full", "partial"] = "none"
    """Each image's scores on a scale of their own: `full` is SPARC's; `partial` takes as much of it
    as is best on validation images."""
    validation_set: NameOrUri | None = None
    """Labelled images to choose a partial normalization on: pictovoc_validation, or a folder of
    your own; None: a fifth of the captions, left out of training with their synthetic images."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)
    access: Annotated[FeatureAccess, FLAT] = field(default_factory=FeatureAccess)
    group: Annotated[TrainingGroup, FLAT] = field(default_factory=TrainingGroup)
    pool: Annotated[PoolConfig, FLAT] = field(default_factory=PoolConfig)
    ray: Annotated[RayConfig, FLAT] = field(default_factory=RayConfig)


def _request(options: Options, store: Store) -> tuple[Any, Store]:
    """What is asked for, and the run whose images are learned from."""
    from t2ipal.evaluation.test_sets import schedule_of
    from t2ipal.recognition.making import TrainingRequest
    from t2ipal.search.winner import read_winner

    backbone = options.backbone
    methods = DEFAULT_METHODS if options.methods is None else options.methods
    schedule = options.data_set or "pictovoc"
    changes, normalization = parse_changes(options.set), None
    if options.template_captions:
        changes = {**changes, "training.template_captions": True}
    if options.from_search is not None:
        given = [n for n in ("methods", "data_set", "images") if getattr(options, n) is not None]
        require(not given, f"{', '.join(given)} cannot be given with from_search, which says it.")
        winner = read_winner(Store(options.from_search, options.endpoint_url))
        backbone = winner.clip(backbone)
        remark(winner.describe())
        methods, schedule = (winner.method,), winner.schedule
        changes, store = {**winner.changes, **changes}, winner.images(store)
        normalization = winner.normalization
    request = TrainingRequest(
        methods,
        options.seeds,
        schedule if options.from_search else schedule_of(schedule),
        options.images,
        changes,
        options.normalization,
        options.validation_set,
        backbone,
        options.unnamed_classes,
        options.access,
        normalization,
    )
    return request, store


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    return run(parse(Options, arguments, __doc__))


def run(options: Options) -> dict[str, Any]:
    """Runs the job with options that are read already."""
    from t2ipal.recognition.making import check_request, train_recognizers

    group, pool = options.group, options.pool
    require(
        not group.use_gpu or options.backbone.device != "cpu",
        "use_gpu needs the backbone, and with it what is trained, on a GPU: add --device cuda.",
    )
    store = Store(options.run, options.endpoint_url)
    output, place = store, "" if options.output else "train"
    if options.output is not None:
        output = Store(options.output, options.endpoint_url)
    elif options.from_search is not None:
        output = Store(options.from_search, options.endpoint_url)
    request, store = _request(options, store)
    runs, remarks = check_request(store, request)  # before Ray starts
    for each in remarks:
        remark(each)
    batches = [run.recipe.training.batch_size for run in runs if run.recipe.training.num_epochs]
    if batches:
        group.check_batch(min(read_manifest(store).settings.num_captions, *batches))
    least, most = group.sizes
    cpus, gpus, in_process = least * pool.cpus_per_worker, least * group.use_gpu, most == 0
    with session(in_process, options.ray, pool, cpus, gpus):
        folder = extract(store, request.backbone, in_process, pool)
        workers = training_workers(group, pool.cpus_per_worker)
        results = train_recognizers(store, request, runs, folder, workers, output, place)
    return finish(
        {
            "output": f"{output.uri}/{place}".rstrip("/"),
            "features": folder,
            "recognizers": sorted(results),
            "final_loss": {n: r.history[-1].loss for n, r in results.items() if r.history},
        }
    )
