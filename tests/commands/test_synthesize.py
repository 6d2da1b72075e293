import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny_clip import write_tiny_clip
from tiny_stable_diffusion import write_tiny_stable_diffusion

from benchmarks.chaos.checks import run_contents
from t2ipal.commands import status, train
from t2ipal.commands.running import run_job
from t2ipal.commands.synthesize import _parse_with_preset as parse
from t2ipal.commands.synthesize import main
from t2ipal.report.config import ReportConfig
from t2ipal.report.drawn import look_at_images
from t2ipal.store import (
    Store,
    committed_shards,
    read_encoded_images,
    read_manifest,
    read_rejected,
    read_run,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with captions and a tiny pipeline."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "captions.txt").write_text(
        "a dog on a boat\na red house\ntwo cats\na bus\na man on a horse\n"
    )
    (folder / "no_class.txt").write_text("a red house\n")
    write_tiny_stable_diffusion(folder / "pipeline")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


def arguments(files, output, **options):
    given = {
        "captions": files / "captions.txt",
        "output": output,
        "pipeline": files / "pipeline",
        "num_inference_steps": 1,
        "images_per_shard": 3,
        **options,
    }
    flags = [[f"--{name.replace('_', '-')}", str(value)] for name, value in given.items()]
    return [word for flag in flags for word in flag]


def test_the_job_alone_in_one_process_and_on_its_own_ray(files, tmp_path, capsys):
    given = arguments(files, tmp_path / "here", num_captions=3, images_per_caption=2)
    summary = main([*given, "--in-process"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == summary
    assert (summary["num_captions"], summary["num_images"], summary["num_shards"]) == (3, 6, 3)
    assert summary["num_rejected"] == 2
    store = Store(tmp_path / "here")
    assert [sample.k for sample in read_run(store).images] == [0, 1] * 3
    assert "not chosen" in [caption.reason for caption in read_rejected(store)]
    assert len(read_manifest(store).class_names) == 20

    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    given = arguments(files, "there", num_captions=3, images_per_caption=2, min_workers=1)
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs/synthesize.py"), *given],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**kept, "HOME": str(home), "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["num_images"] == 6
    assert "6/6" in done.stderr
    assert run_contents(Store(tmp_path / "there")) == run_contents(store)
    assert not (home / ".ray").exists()  # its token lives as long as it


def test_a_run_grows_one_image_is_made_again_and_its_status_shown(files, tmp_path, capsys):
    output = tmp_path / "run"
    main([*arguments(files, output, num_captions=2), "--in-process"])
    given = arguments(files, output, num_captions=3, images_per_caption=2)
    assert main([*given, "--in-process"])["num_shards_skipped"] == 1
    store = Store(output)
    row = next(sample for sample in read_run(store).images if sample.k == 1)
    remade = main(["--output", str(output), "--only", row.key])
    assert remade["same_as_stored"] is True and remade["caption"] == row.caption
    stored = {other.key: data for other, data in read_encoded_images(store, row.key[:5])}
    assert Path(remade["output"]).read_bytes() == stored[row.key]
    for key in ("00000-00099", "00000-0000000", "000000-00000", "00000-000000"):
        with pytest.raises(ValueError, match=f"No sample '{key}' .* such as 00003-00017"):
            main(["--output", str(output), "--only", key])
    with pytest.raises(FileNotFoundError, match=r"No run in .*none. Run jobs/synthesize.py first"):
        main(["--output", str(tmp_path / "none"), "--only", "00000-00000"])

    capsys.readouterr()
    shown = status.main(["--run", str(output), "--price-per-gpu-hour", "3600"])
    text = capsys.readouterr().out
    assert "images  6 of 6 (100.0% done), 0 failed" in text and ", done" in text
    markers = committed_shards(store)
    assert shown["cost"] == pytest.approx(sum(marker.seconds for marker in markers))
    assert shown["num_shards_done"] == shown["num_shards"] == len(markers)
    (output / "images/00001.json").unlink()
    shown = status.main(["--run", str(output)])
    assert shown["num_images"] < 6 and shown["cost"] is None
    assert shown["seconds_left"] is None or shown["seconds_left"] > 0
    with pytest.raises(FileNotFoundError, match="No run in"):
        status.main(["--run", str(tmp_path / "none")])
    with pytest.raises(ValueError, match=r"watch must be > 0, got 0"):
        status.main(["--run", str(output), "--watch", "0"])


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_images_in_another_format(files, tmp_path, image_format):
    given = arguments(files, tmp_path, num_captions=2, image_format=image_format)
    main([*given, "--in-process"])
    store = Store(tmp_path)
    row, data = next(read_encoded_images(store, "00000"))
    remade = main(["--output", str(tmp_path), "--only", row.key])
    assert remade["same_as_stored"] is True
    assert remade["output"].endswith(f"/remade/{row.key}.{image_format}")
    assert Path(remade["output"]).read_bytes() == data
    assert Image.open(remade["output"]).format == image_format.upper()
    card = store.read("README.md").decode()
    assert f"hold `KEY.{image_format}`" in card and f"`image_format` | {image_format} |" in card
    assert len(look_at_images(read_run(store), ReportConfig())[0]) == 2
    with pytest.raises(ValueError, match=f"image_format: '{image_format}' there, 'jpeg' here"):
        main([*arguments(files, tmp_path, num_captions=2), "--in-process"])


def test_features_are_stored_beside_the_images(files, tmp_path, model):
    """Those that jobs/train.py asks for: it finds them and changes none."""
    plain, fast = Store(tmp_path / "plain"), Store(tmp_path / "fast")
    given = {"num_captions": 3, "images_per_caption": 2}
    features = ["--features", "--backbone.model", str(model)]
    assert "features" not in main([*arguments(files, plain.uri, **given), "--in-process"])
    summary = main([*arguments(files, fast.uri, **given), "--in-process", *features])
    folder = summary["features"]
    assert summary["num_shards_without_features"] == 0
    before = run_contents(fast)
    assert {k: v for k, v in before.items() if not k.startswith("features/")} == run_contents(plain)
    assert len([key for key in before if key.startswith(f"{folder}/images-")]) == 3

    words = ["--model", str(model), "--num-workers", "0", "--seeds", "0"]
    for store in (plain, fast):
        training = ["--run", store.uri, *words, "--methods", "zsclip"]
        assert train.main(training)["features"] == folder
    after = run_contents(fast)
    assert {key: after[key] for key in before} == before
    assert {key: plain.read(key) for key in plain.list("features/")} == {
        key: after[key] for key in fast.list("features/")
    }

    # Shards that were there without them are not touched, and told.
    (tmp_path / "fast" / folder / "images-00001.safetensors").unlink()
    summary = main([*arguments(files, fast.uri, **given), "--in-process", *features])
    assert (summary["num_shards_skipped"], summary["num_shards_without_features"]) == (3, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--backbone.model {files}", r"say whose features to store: add --features"),
        ("--features --backbone.model {files}", r"backbone folder must hold open_clip_config.json"),
        ("--features --backbone.model RN1O1", r"Unknown backbone 'RN1O1'. Did you mean 'RN101'"),
    ],
)
def test_a_backbone_that_is_not_there_or_not_used(files, tmp_path, words, message):
    given = arguments(files, tmp_path / "run")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        main([*given, "--in-process", *words.format(files=files).split()])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captions": "none.json"}, r"No file .*none.json"),
        ({"captions": "{files}/no_class.txt"}, r"No caption names a class.*voc2007"),
        ({"vocabulary": "voc2077"}, r"Unknown vocabulary 'voc2077'. Did you mean 'voc2007'"),
        ({"num_captions": 0}, r"num_captions must be > 0, got 0"),
        ({"images_per_shard": -1}, r"images_per_shard must be > 0, got -1"),
        ({"num_inference_steps": 0}, r"num_inference_steps must be .*got 0"),
        ({"images_per_caption": 0}, r"images_per_caption must be .*got 0"),
        ({"batch_size": -2}, r"batch_size must be .*got -2"),
        ({"min_workers": 0}, r"min_workers must be > 0, got 0"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(files, tmp_path, options, message):
    options = {name: str(value).format(files=files) for name, value in options.items()}
    given = arguments(files, tmp_path / "run", **options)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        main([*given, "--in-process"])
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_names_those_that_there_are(files, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments(files, tmp_path / "run", image_format="jpg"), "--in-process"])
    assert stopped.value.code == 2 and not list(tmp_path.iterdir())
    assert "'jpeg'" in capsys.readouterr().err


def test_missing_weights_are_named(files, tmp_path):
    given = arguments(files, tmp_path / "run", pipeline=tmp_path / "nothing")
    with pytest.raises((ValueError, OSError), match=r"nothing"):
        main([*given, "--in-process"])


def test_another_runs_output_is_refused(files, tmp_path):
    given = arguments(files, tmp_path, num_captions=1)
    main([*given, "--in-process"])
    before = run_contents(Store(tmp_path))
    given = arguments(files, tmp_path, num_captions=1, guidance_scale=3.5)
    with pytest.raises(ValueError, match=r"synthesis.guidance_scale: .* there, 3.5 here"):
        main([*given, "--in-process"])
    assert run_contents(Store(tmp_path)) == before


def test_options_replace_those_of_a_preset(capsys):
    given = ["--output", "run", "--preset", "lcm"]
    config = parse(given).synthesis
    assert (config.pipeline, config.num_inference_steps) == ("SimianLuo/LCM_Dreamshaper_v7", 4)
    more = ["--num-inference-steps", "6", "--acceleration.deep-cache", "2"]
    config = parse([*given, *more]).synthesis
    assert config.num_inference_steps == 6 and config.guidance_scale == 8.0
    assert config.acceleration.deep_cache == 2
    with pytest.raises(ValueError, match=r"Unknown preset 'sd-tubo'\. Did you mean 'sd-turbo'"):
        parse([*given[:3], "sd-tubo"])
    with pytest.raises(SystemExit):
        parse(["--preset", "sdxl-lightning"])
    assert "--output" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(["--preset", "sdxl-lightning", "--help"])
    assert "sdxl_lightning_4step_unet" in capsys.readouterr().out


def test_an_unknown_option_names_the_nearest(files, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments(files, tmp_path), "--guidence-scale", "2"])
    assert stopped.value.code == 2
    assert "--guidance-scale" in capsys.readouterr().err


def test_an_error_ends_a_job_with_one_line_and_code_2(capsys):
    def broken():
        raise ValueError("size must be > 0,\n got 0.")

    with pytest.raises(SystemExit) as stopped:
        run_job(broken)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: size must be > 0, got 0.\n"
