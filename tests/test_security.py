"""What docs/security.md says: the tests that it names, what the code never does, and secrets."""

import ast
import io
import re
import traceback
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import use_credentials

from t2ipal.commands import report, status, synthesize
from t2ipal.commands.running import run_job
from t2ipal.places import LocalPath, ModelPlace, NameOrPath, NameOrUri, SharedUri, Uri, _reader
from t2ipal.store import Store
from t2ipal.synthesis.rendering import RenderingSynthesizer

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
CODE = [path for folder in ("t2ipal", "jobs") for path in sorted((ROOT / folder).rglob("*.py"))]
FORBIDDEN = {
    "eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "yaml.unsafe_load", "yaml.full_load", "shutil.unpack_archive", "urllib.request.urlretrieve",
}  # fmt: skip
"""Calls that run, fetch or unpack what they are given."""
MODULES = {"aiohttp", "cloudpickle", "dill", "httpx", "joblib", "marshal", "requests", "shelve"}
"""Which do so too."""
ELSEWHERE = {
    "torch.jit.load": {"t2ipal/features/openai_weights.py"},  # of OpenAI's own file alone
    "yaml.load": {"t2ipal/config.py"},  # with a SafeLoader
    "urllib.request.urlopen": {"t2ipal/doctor/job_server.py"},  # a cluster's address
}
MARK = "mark3d-s3cret"


@cache
def names_of_tests(path):
    return {n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)}


def test_every_test_that_the_page_names_is_there():
    page = (ROOT / "docs" / "security.md").read_text()
    for file, name in NAMED.findall(page):
        path = ROOT / "tests" / file
        assert path.is_file() and name in names_of_tests(path), f"{file}::{name} is not there"
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    rows = [line for line in rows if not line.startswith("| what could happen |")]
    assert len(rows) > 40 and not [line for line in rows if not NAMED.search(line)]


def calls(tree):
    """(dotted name of what is called, its keyword arguments that are constants)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            words = ((word.arg, word.value) for word in node.keywords)
            given = {name: v.value for name, v in words if isinstance(v, ast.Constant)}
            yield ast.unparse(node.func), given


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def test_what_the_code_never_does():
    for path in CODE:
        place, tree = str(path.relative_to(ROOT)), ast.parse(path.read_text())
        assert not MODULES & {*imported(tree)}, place
        for name, given in calls(tree):
            about = f"{place}: {name}"
            assert name not in FORBIDDEN and not name.endswith(".extractall"), about
            assert place in ELSEWHERE.get(name, {place}), about
            assert name != "torch.load" or given.get("weights_only") is True, about
            for word in ("shell", "allow_pickle", "trust_remote_code"):
                assert not given.get(word), about


@pytest.mark.parametrize("hint", [LocalPath, ModelPlace, NameOrPath, NameOrUri, SharedUri, Uri])
def test_no_job_reads_an_address_of_the_web(hint):
    read = _reader(hint)
    assert read is not None
    for address in (
        "http://169.254.169.254/latest/meta-data", "https://e.org/a", "HTTP://e.org", "ftp://e.org/a",
        "file://169.254.169.254/a",
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"must be .*, got '|A store is a local path or s3://"):
            read(address, "captions")


def test_marked_secrets_appear_nowhere(s3_server, tmp_path, monkeypatch, capfd, caplog):
    use_credentials(monkeypatch, "key", MARK)
    for name in ("AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN", "HF_TOKEN", "WANDB_API_KEY", "DB_PASSWORD"):
        monkeypatch.setenv(name, f"{MARK}-{name}")
    monkeypatch.setattr("t2ipal.diffusion.synthesizer.Synthesizer", RenderingSynthesizer)
    monkeypatch.setattr("t2ipal.diffusion.identity.pinned", lambda config, model: config)
    store = Store("s3://runs/secret", s3_server)
    (tmp_path / "captions.txt").write_text("A dog runs beside a red car.\n\n \x00\n")
    reached = ["--endpoint-url", s3_server]
    words = ["--captions", str(tmp_path / "captions.txt"), "--in-process", *reached]
    synthesize.main([*words, "--output", store.uri])
    status.main(["--run", store.uri, *reached])
    report.main(["--run", store.uri, *reached])
    for fails in (
        lambda: synthesize.main([*words, "--output", "s3://absent-bucket/run"]),
        lambda: synthesize.main([*words, "--output", store.uri, "--seed", "7"]),
        lambda: status.main(["--run", "s3://runs/none", *reached]),
    ):
        with pytest.raises(Exception) as raised:
            fails()
        assert MARK not in "".join(traceback.format_exception(raised.value))
        with pytest.raises(SystemExit):
            run_job(fails)
    printed = "".join(capfd.readouterr()) + caplog.text
    assert "error: No bucket 'absent-bucket'" in printed and MARK not in printed
    keys = store.list()
    assert {"report.html"} <= {*keys} and any(key.endswith(".parquet") for key in keys)
    for key in keys:
        data = store.read(key)
        assert MARK.encode() not in data, key
        if key.endswith(".parquet"):
            assert MARK not in str(pq.read_table(io.BytesIO(data)).to_pydict()), key
