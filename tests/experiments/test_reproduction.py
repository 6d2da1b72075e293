"""The whole on a world of few scenes, with a CLIP never trained and images that the world draws."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_synthesis import FakeConfig, FakeSynthesizer
from small_run import small_captions, write_random_judge
from tiny_clip import write_tiny_clip

from t2ipal.captions import filter_captions, load_vocabulary, read_captions
from t2ipal.commands.reproduce import main
from t2ipal.config import fingerprint, override, to_dict
from t2ipal.evaluation.cache_weights import with_chosen_weights
from t2ipal.evaluation.evaluate import evaluate, predict
from t2ipal.experiments import drawings, fitting, reproduction, shown, world_sets
from t2ipal.experiments.fitting import Fit, read_fits, read_scores
from t2ipal.experiments.sources import Captions, Labels, turned_rows
from t2ipal.pictovoc.worlds import WORLDS
from t2ipal.store import Store
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.rendering import RenderingSynthesizer
from t2ipal.synthesis.request import SynthesisRequest
from t2ipal.training.loop import fit

ITEMS = (
    "table3", "table5", "table6", "table9", "fig3", "fig5", "fig7", "fig8", "fig10", "plus",
    "plus_settings", "rendered", "shown",
)  # fmt: skip
SCENES, LABELLED = 150, 250
NUM_EPOCHS = 3
"""Of every fit that is trained."""
COCO = Path(__file__).parents[3] / "shared" / "data" / "coco"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Options of the job, and what was put in place of the world's own."""
    folder = tmp_path_factory.mktemp("world")
    write_random_judge(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in reproduction.LOOKS + reproduction.MORE_TESTS[:-1] + ("pictovoc_attributes",):
            patch.setitem(WORLDS, name, dataclasses.replace(WORLDS[name], count=SCENES))
        train = dataclasses.replace(WORLDS["pictovoc_train"], count=LABELLED)
        patch.setitem(WORLDS, "pictovoc_train", train)
        patch.setattr(Fit, "recipe", in_few_epochs(Fit.recipe))
        patch.setattr(drawings, "WEIGHTS_DIR", folder)
        patch.setattr(shown, "WEIGHTS_DIR", folder)
        patch.setattr(drawings, "NAMED_THRESHOLD", 1.0)  # the judge, never trained, finds nothing
        vocabulary = load_vocabulary("voc2007")
        captions = filter_captions(small_captions()[5:], vocabulary)
        patch.setattr(world_sets, "choose_captions", lambda count: (vocabulary, captions))
        real = world_sets.synthesize

        def render(*arguments, factory, **options):
            return real(*arguments, factory=RenderingSynthesizer, **options)

        patch.setattr(world_sets, "synthesize", render)
        clip = str(write_tiny_clip(folder / "clip"))
        yield [
            "--quick", "--in-process", "--model", clip, "--other", clip, "--num-captions", "20",
            "--num-labelled", str(LABELLED), "--output", str(folder / "run"),
        ]  # fmt: skip


def in_few_epochs(whole):
    def recipe(self, data):
        made = whole(self, data)
        return override(made, {"training.num_epochs": min(made.training.num_epochs, NUM_EPOCHS)})

    return recipe


def run(world, items=ITEMS):
    return main([*world, "--items", *items])


@pytest.fixture(scope="module")
def done(world):
    """The job's summary, and the data of its fits."""
    seen, train = {}, reproduction.train_missing

    def train_and_tell(config, data, *rest):
        seen.update(data=data)
        return train(config, data, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduction, "train_missing", train_and_tell)
        summary = run(world)
    return summary, seen["data"]


@pytest.fixture
def data(done):
    return done[1]


def test_tables_and_figures_and_again(world, done, monkeypatch):
    summary, _ = done
    assert summary["items"] == [*ITEMS]
    assert "data missing" not in summary["cells"] and summary["cells"]["measured"] > 40
    place = Store(world[-1])
    result = json.loads(place.read("reproduction.json"))
    by_name = {item["name"]: item for item in result["items"]}
    for item in result["items"]:
        for cell in (cell for row in item.get("rows", ()) for cell in row["cells"]):
            if cell["status"] == "measured":
                assert np.isfinite(cell["values"]).all() and 0 <= cell["mean"] <= 100
    assert len(by_name["table3"]["rows"][3]["cells"][1]["values"]) == 4  # episodes
    assert len(by_name["table9"]["rows"][0]["cells"][0]["values"]) == 2  # seeds
    reached = summary["plus"]["t2ipal_plus"]
    ours = {row["title"]: row["cells"] for row in by_name["plus"]["rows"]}["T2I-PAL+"]
    assert [*reached] == ["pictovoc", "pictovoc_shifted", "pictovoc_night", "pictovoc#novel"]
    assert [*reached.values()] == [{n: cell[n] for n in ("mean", "std")} for cell in ours]
    names = {f"{name}{form}" for name in ("zsclip", "tai_dpt + class_concept")
             for form in ("", ", normalized", ", partly normalized")}  # fmt: skip
    assert names < {*summary["plus"]} and len(summary["plus"]) == 48
    for name in ("table6", "fig5", "fig7", "fig8", "fig10", "shown"):
        assert by_name[name]["cards"] or name in ("fig7",), name
        assert all("image" not in card for card in by_name[name]["cards"])
    for name in ("reproduction.html", "reproduction.md", "reproduction.tex", "figures/fig3.svg"):
        assert place.exists(name)
    before = {name: place.read(name) for name in place.list("") if name.startswith("fits/")}

    def trains(*arguments):
        raise AssertionError("everything is done")

    monkeypatch.setattr(fitting, "train_group", trains)
    monkeypatch.setattr(shown, "judged", trains)
    assert run(world) == summary
    assert {name: place.read(name) for name in before} == before


def test_a_stacked_fit_is_the_one_that_is_trained_alone(data):
    done = Fit("t2ipal", Captions(), 1, (("training.images_per_caption", 2),))
    assert read_fits([done], data, frozenset([done]))
    made = done.recipe(data)
    features = data.training(done.source, 1, "main")
    alone = fit(made.method.build(data.load_backbone("main"), 1), features, made.training)
    test = next(t for t in data.tests(done.source, "main") if t.name == "pictovoc")
    (scores,) = predict([alone.recognizer], test.features)
    np.testing.assert_allclose(read_scores(done, data)["pictovoc"], scores, atol=1e-4)


@pytest.mark.parametrize("source", [Labels(1, episode=0), Labels(1)])
def test_a_caches_weights_are_chosen_on_validation_scenes(data, source):
    """Of the novel classes alone where the shots are; whatever the test scenes say."""
    done = Fit("tip_adapter", source, 1)
    fitting.train_group([done], data, frozenset())
    told = json.loads(data.store.read(f"fits/{done.key(data)}.json"))
    made = done.recipe(data)
    features = data.training(source, 1, "main")
    plain = fit(made.method.build(data.load_backbone("main"), 1), features, made.training)
    novel = "" if source.episode is None else "#novel"
    seen = data.test(f"pictovoc_validation{novel}", "main")
    (chosen,) = with_chosen_weights([plain.recognizer], seen.features)
    assert told["chosen"] == {
        "on": seen.name,
        "residual_ratio": chosen.config.residual_ratio,
        "sharpness": chosen.config.sharpness,
    }
    test = data.test(f"pictovoc{novel}", "main")
    assert told["values"][test.name] == pytest.approx(evaluate(chosen, test.features).mAP)
    assert len(test.class_names) == (20 if source.episode is None else 4)


def test_a_cache_without_validation_images_keeps_its_defaults(data):
    data = dataclasses.replace(data, validation="")
    done = Fit("tip_adapter", Labels(1), 0)
    assert done.chosen_on(data) == ""
    fitting.train_group([done], data, frozenset())
    assert "chosen" not in json.loads(data.store.read(f"fits/{done.key(data)}.json"))


def test_what_a_source_is(data):
    plain = data.training(Captions(), 0, "main")
    moved = data.training(Captions(), 1, "main")
    count = plain.image_of_caption.shape[1]
    assert moved.image_of_caption.tolist() == plain.image_of_caption.roll(-2, 1).tolist()
    same = data.training(Captions(same_images=True), 1, "main")
    assert same.image_of_caption.tolist() == plain.image_of_caption.tolist()
    instead = data.training(Captions(originals="instead", share=0.5), 0, "main")
    num_images = (instead.image_of_caption >= 0).sum(dim=1)
    assert num_images.unique().tolist() == [1, count]
    assert int((num_images == 1).sum()) == round(0.5 * len(num_images))
    again = data.training(Captions(originals="instead", share=0.5), 1, "main")
    others = (again.image_of_caption >= 0).sum(dim=1)
    assert int((others == 1).sum()) == int((num_images == 1).sum())
    assert others.tolist() != num_images.tolist()  # another seed, other captions
    beside = data.training(Captions(originals="beside"), 0, "main")
    assert (beside.image_of_caption >= 0).sum(dim=1).tolist() == [count + 1] * len(num_images)
    attributes = data.training(Captions(attributes=True), 0, "main")
    names, prompts = data.vocabulary(Captions(attributes=True))
    assert attributes.texts.labels.shape[1] == len(names) == len(prompts)


def test_each_seed_begins_with_images_that_are_there():
    rows = torch.tensor([[0, 1, 2, 3], [4, -1, 5, -1], [-1, -1, -1, -1]])
    assert turned_rows(rows, 0).tolist() == [[0, 1, 2, 3], [4, 5, -1, -1], [-1] * 4]
    assert turned_rows(rows, 2).tolist() == [[2, 3, 0, 1], [4, 5, -1, -1], [-1] * 4]
    assert turned_rows(rows, 3).tolist() == [[3, 0, 1, 2], [5, 4, -1, -1], [-1] * 4]


def test_a_key_is_of_what_is_trained(data):
    plain = Fit("t2ipal", Captions(), 0)
    assert plain.key(data) == Fit("t2ipal", Captions(), 0, (("method.sharpness", 5.5),)).key(data)
    others = [
        Fit("t2ipal", Captions(), 1),
        Fit("t2ipal", Captions(), 0, (("method.sharpness", 5.0),)),
        Fit("t2ipal", Captions(originals="beside"), 0),
        Fit("t2ipal", Captions(), 0, backbone="regions"),
        Fit("tai_dpt", Captions(), 0),
    ]
    described = {**data.described, "backbones": {"main": "a", "regions": "b"}}
    data = dataclasses.replace(data, described=described)
    assert len({fit.key(data) for fit in (plain, *others)}) == 1 + len(others)
    more = {**described, "tests": {name: [name, 7, 0] for name in described["tests"]}}
    assert plain.key(dataclasses.replace(data, described=more)) != plain.key(data)


def test_a_key_has_more_only_where_that_changes_the_result(data):
    """So that what was trained before is found."""

    def plain(each):
        facts = data.facts(each.source, each.backbone)
        made, source = to_dict(each.recipe(data)), dataclasses.asdict(each.source)
        for later in ("first", "choice"):
            source.pop(later, None)
        return fingerprint([made, source, each.seed, facts])

    some = Captions(originals="instead", share=0.5)
    same = [Fit("zsclip", Captions(), 0), Fit("coop", Labels(1), 1), Fit("t2ipal", some, 0)]
    same += [Fit("t2ipal", dataclasses.replace(some, share=1.0), 1)]
    assert [each.key(data) for each in same] == [plain(each) for each in same]
    for few in (Captions(first=3), Captions(choice="best")):
        assert Fit("t2ipal", few, 0).key(data) != Fit("t2ipal", Captions(), 0).key(data)
    cache = Fit("tip_adapter_f", Labels(1), 0)
    for each in (cache, Fit("t2ipal", some, 1)):
        assert each.key(data) != plain(each)
    nothing_to_choose_on = dataclasses.replace(data, validation="")
    assert cache.key(nothing_to_choose_on) == plain(cache)


def test_more_images_than_there_are(data):
    few, many = (("training.images_per_caption", n) for n in (3, 10))
    assert data.missing(Captions(), "main", (few,)) == ""
    assert data.missing(Captions(), "main", (many,)) == "10 images a caption; synthetic has 3"
    assert data.missing(Captions(), "third", ()) == "another encoder: --other MODEL"


def test_a_fit_that_cannot_be_trained_leaves_the_others(world, monkeypatch):
    real = fitting.train_group

    def some(fits, data, kept):
        if getattr(fits[0].source, "originals", "none") == "beside":
            raise ValueError("no room for it")
        real(fits, data, kept)

    monkeypatch.setattr(fitting, "train_group", some)
    summary = run(world, ["table8"])
    assert summary["cells"] == {"measured": 9, "data missing": 3, "published only": 7}
    assert summary["claims"]["not measured"] == 1
    text = Store(world[-1]).read("reproduction.md").decode()
    assert "Data missing: no room for it." in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--items", "table99"], "Unknown item 'table99'"),
        (["--sets", "synthetic=x"], "leave sets out"),
        (["--episodes", "x.json"], "leave them out"),
        (["--on", "voc2007"], "voc2007 needs its folder: give --test-root"),
        (["--on", "voc2007", "--test-root", "/nowhere", "--sets", "x"], "sets must be NAME=RUN"),
    ],
)
def test_what_cannot_be_asked_is_refused_at_once(words, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        main([*words, "--in-process", "--output", str(tmp_path)])
    assert not [*tmp_path.iterdir()]


@pytest.fixture
def coco(tmp_path, world):
    """Options for MS-COCO's photographs, with noise as synthetic images of their captions."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for side in ("train", "val"):
        (root / f"{side}2017").symlink_to(COCO / f"{side}2017")
        name = f"annotations/instances_{side}2017"
        (root / f"{name}.json").symlink_to(COCO / f"{name}_mini.json")
    vocabulary = load_vocabulary("coco2014")
    captions = read_captions(str(COCO / "annotations" / "captions_train2017_mini.json"))
    request = SynthesisRequest(FakeConfig(), vocabulary, filter_captions(captions, vocabulary))
    synthesize(Store(tmp_path / "images"), request, factory=FakeSynthesizer)
    clip = world[world.index("--model") + 1]
    return [
        "--quick", "--in-process", "--on", "coco2017", "--test-root", str(root), "--model", clip,
        "--sets", f"synthetic={tmp_path / 'images'}", "--output", str(tmp_path / "run"),
    ]  # fmt: skip


@pytest.mark.skipif(not COCO.is_dir(), reason=f"no MS-COCO data in {COCO}")
def test_photographs_of_a_real_data_set(coco):
    summary = main([*coco, "--items", "table2", "table3", "table4", "table7", "table9", "fig3"])
    place = Store(coco[-1])
    result = json.loads(place.read("reproduction.json"))
    items = {item["name"]: item for item in result["items"]}
    adapters = [row["cells"][0] for row in items["table7"]["rows"]]
    assert [cell["status"] for cell in adapters] == ["measured"] * 3
    assert np.isfinite([cell["values"] for cell in adapters]).all()
    portions = items["table2"]["rows"][0]["cells"]
    assert {cell["status"] for cell in portions} == {"measured"}
    assert items["table9"]["rows"][3]["cells"][0] == {
        "status": "data missing", "reason": "a set of images: --sets original=RUN"
    }  # fmt: skip
    claims = {claim["claim"]: claim["outcome"] for claim in items["fig3"]["claims"]}
    assert claims["the best lambda is neither 0 nor 1"] == "not measured"  # nothing to choose on
    assert claims["beyond 2 images a caption nothing more is gained"] == "not measured"
    assert {cell["status"] for cell in items["table3"]["rows"][0]["cells"]} == {
        "data missing",
        "none",
    }
    assert "shots need as many images of every class" in place.read("reproduction.md").decode()
    assert summary["cells"]["data missing"] > 0
    told = [line for line in result["footers"] if line.startswith("Captions and images")]
    assert told == [
        f"Captions and images synthetic: {coco[coco.index('--sets') + 1][10:]} "
        "(caption leak: nobody looked for captions of test images)."
    ]


@pytest.mark.skipif(not COCO.is_dir(), reason=f"no MS-COCO data in {COCO}")
def test_what_needs_no_captions_is_measured_without_a_set(coco):
    at = coco.index("--sets")
    main([*coco[:at], *coco[at + 2 :], "--items", "table5"])
    result = json.loads(Store(coco[-1]).read("reproduction.json"))
    cells = {row["title"]: row["cells"][0] for row in result["items"][0]["rows"]}
    assert cells["ZSCLIP"]["status"] == "measured" and 0 < cells["ZSCLIP"]["mean"] < 100
    missing = {"status": "data missing", "reason": "a set of images: --sets synthetic=RUN"}
    assert cells["TaI-DPT"] == cells["T2I-PAL"] == missing
