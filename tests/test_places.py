"""Texts that name places: what each option takes, refuses, and hands on."""

from dataclasses import dataclass, field

import pytest

from t2ipal.places import (
    LocalPath,
    ModelPlace,
    NameOrPath,
    NameOrUri,
    SharedUri,
    Uri,
    local_path,
    resolve_places,
)


@dataclass(frozen=True)
class Inner:
    model: NameOrPath = "pictovoc"
    pipeline: ModelPlace | None = None


@dataclass(frozen=True)
class Options:
    run: SharedUri = "run"
    captions: Uri | None = None
    space: LocalPath = "space.yaml"
    test_set: NameOrUri | None = None
    recognizer: tuple[SharedUri, ...] = ()
    text: str = "~/not/a/place"
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a/b", "a/b"),
        ("/a b", "/a b"),
        ("~", "/home/me"),
        ("~/runs/x", "/home/me/runs/x"),
        ("./~", "./~"),
        ("a~b", "a~b"),
        ("file:///a/b", "/a/b"),
        ("file:///a%20b/100%25%C3%A9?x#y", "/a b/100%é?x#y"),
        ("FILE://localhost/a", "/a"),
        ("file:/a", "/a"),
        ("owner/name@main", "owner/name@main"),
    ],
)
def test_a_local_path(monkeypatch, text, path):
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path(text) == path
    assert resolve_places(Options(space=text)).space == path


@pytest.mark.parametrize(
    "text", ["file://host/a", "file://a", "file:", "gs://b", "s3:/b", "S3://b"]
)
def test_other_schemes_are_no_local_path(text):
    if text != "file:":  # a file's name
        with pytest.raises(ValueError, match=r"A store is a local path or s3://\.\.\., got '"):
            local_path(text)


def test_a_home_that_nobody_has(monkeypatch):
    monkeypatch.setenv("HOME", "")  # not the root of the machine
    with pytest.raises(ValueError, match=r"No home folder is known for ~ in '~/run'"):
        resolve_places(Options(run="~/run"))
    with pytest.raises(ValueError, match=r"No home folder is known for ~no-such-user in '~no-s"):
        resolve_places(Options(run="~no-such-user/run"))


def test_places_are_resolved_wherever_they_are(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    given = Options(
        "~/run", "s3://b/a.txt", "~/s.yaml", "file:///p%20q", ("~/a", "s3://b/c"), "~/not/a/place",
        Inner("~/clip", "file:///sd"),
    )  # fmt: skip
    assert resolve_places(given) == Options(
        "/home/me/run", "s3://b/a.txt", "/home/me/s.yaml", "/p q", ("/home/me/a", "s3://b/c"),
        "~/not/a/place", Inner("/home/me/clip", "/sd"),
    )  # fmt: skip
    names = Options(test_set="voc2007", inner=Inner("RN101", "~/sd"))
    assert resolve_places(names) == names  # a run keeps its pipeline's name as it was given


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(space="s3://b/s"), "space must be a local path, got 's3://b/s'."),
        (Options(captions="https://x/a"), "captions must be a local path or s3://..., got 'https:"),
        (Options(inner=Inner("s3://b/c")), "model must be a name or a local path, got 's3://b/c'."),
        (Options(inner=Inner(pipeline="hf://a/b")), "pipeline must be a name or a local path, got"),
        (Options(test_set="gs://b"), "test_set must be a name or a local path or s3://..., got"),
        (Options(recognizer=("a", "s3:/b")), "recognizer must be a local path or s3://..., got"),
    ],
)
def test_what_an_option_does_not_take_is_refused(options, message):
    with pytest.raises(ValueError) as caught:
        resolve_places(options)
    assert str(caught.value).startswith(message)


def test_a_submitted_job_needs_places_that_all_machines_reach(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    message = r"run must be s3:// or an absolute path, got 'runs/x': a submitted job runs in a temp"
    with pytest.raises(ValueError, match=message):
        resolve_places(Options(run="runs/x"))
    with pytest.raises(ValueError, match=r"recognizer must be s3:// or an absolute path"):
        resolve_places(Options("/run", recognizer=("s3://b/r", "r")))
    resolve_places(Options("s3://b/run", captions="a.txt", recognizer=("~/r",)))
