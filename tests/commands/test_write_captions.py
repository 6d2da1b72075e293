import json

import pytest

from t2ipal.captions import filter_captions, load_vocabulary, read_captions
from t2ipal.commands.write_captions import main


def test_the_job_writes_goes_on_and_says_what_it_did(tmp_path, capsys):
    output = str(tmp_path / "captions.jsonl")
    given = ["--vocabulary", "pictovoc_novel", "--output", output, "--seed", "2"]
    first = main([*given, "--count", "40"])
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1]) == first
    assert first["num_captions"] == 40 and "40/40" in captured.err
    second = main([*given, "--count", "60"])
    assert second["num_new_texts"] < 60 and second["num_captions"] == 60
    kept = filter_captions(read_captions(output), load_vocabulary("pictovoc_novel")).kept
    assert len(kept) == 60


def test_what_cannot_be_done_is_said_before_ray_starts(tmp_path):
    output = ["--output", str(tmp_path / "captions.jsonl")]
    with pytest.raises(FileNotFoundError, match="must be 'grammar' or a causal language model"):
        main([*output, "--writer", str(tmp_path / "nowhere")])
    with pytest.raises(ValueError, match=r"Unknown vocabulary 'voc2008'\. Did you mean 'voc2007'"):
        main([*output, "--vocabulary", "voc2008"])
    with pytest.raises(ValueError, match="count must be > 0, got 0"):
        main([*output, "--count", "0"])
    with pytest.raises(ValueError, match=r"ending of .*captions.doc"):
        main(["--output", str(tmp_path / "captions.doc")])
