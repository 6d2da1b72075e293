"""Written captions in a store: a caption file, and beside it what it was made from.

Texts are kept part by part as they come, so that the same request goes on where it stopped. What
is taken of them is decided anew each time, in the order of the plan.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from tqdm import tqdm

from t2ipal.captions.grammar import GrammarWriter
from t2ipal.captions.language_model import LanguageModelWriter, SamplingConfig
from t2ipal.captions.tasks import Task, WritingConfig
from t2ipal.captions.vocabulary import Vocabulary
from t2ipal.captions.writing import GRAMMAR, Tries, WrittenText, caption_id, collect
from t2ipal.config import differences, fingerprint, parse_json, require, to_dict
from t2ipal.store import (
    Store,
    damaged,
    join_key,
    json_bytes,
    read_json,
    store_and_key,
    table_format,
    table_writer,
)

JOB = "write_captions"
PART_TASKS = 64
"""That are lost at most when a worker is killed."""
TAKEN = {"caption_id": "text", "caption": "text", "asked": "texts", "labels": "texts"}
"""Columns of the caption file and their kinds."""
REFUSED = TAKEN | {"attempt": "count", "reason": "text"}


@dataclass(frozen=True)
class WritingWork:
    """Everything that a worker needs beside its tasks."""

    writer: str
    """"grammar", or a language model."""
    vocabulary: Vocabulary
    config: WritingConfig = field(default_factory=WritingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    device: str = "cpu"

    def load(self) -> Tries:
        """The writer, ready for tasks."""
        if self.writer == GRAMMAR:
            write = GrammarWriter(self.vocabulary)
        else:
            names = self.vocabulary.prompt_names
            write = LanguageModelWriter(self.writer, names, self.sampling, self.device)
        return Tries(write, self.vocabulary, self.config)

    @property
    def writer_name(self) -> str:
        """As it stands in ids."""
        return PurePosixPath(self.writer.rstrip("/")).name

    def settings(self) -> dict[str, Any]:
        """What texts depend on; how many there are, and which are taken, is not among it."""
        sampling = to_dict(self.sampling)
        del sampling["batch_size"]
        return {
            "writer": self.writer,
            "vocabulary": self.vocabulary.name,
            "classes": fingerprint(self.vocabulary),
            "seed": self.config.seed,
            "class_shares": list(self.config.class_shares),
            **({} if self.writer == GRAMMAR else {"sampling": sampling}),
        }


Workers = Callable[[WritingWork, Sequence[Sequence[Task]]], Iterator[list[list[str]]]]
"""`in_process`, or `t2ipal.engine.writing.on_ray`, which takes the same: texts of each part."""


def in_process(work: WritingWork, parts: Sequence[Sequence[Task]]) -> Iterator[list[list[str]]]:
    """Writes every part here, without Ray."""
    write = work.load()
    yield from map(write, parts)


def write_caption_file(
    output: str,
    work: WritingWork,
    count: int,
    workers: Workers = in_process,
    endpoint_url: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
    progress: bool = False,
) -> dict[str, Any]:
    """Writes a caption file, and beside it a folder of what it came from; returns the summary.

    The file has a row for each caption: caption_id, caption, asked (classes that it had to name)
    and labels (all that it names). NAME.written/ holds settings.json, refused.jsonl and the parts.

    Args:
        output: file ending in .jsonl, .csv or .parquet, local or on s3://.
        work: who writes, and for which classes.
        count: of captions.
        workers: who does the work.
        endpoint_url: server of an S3 store that is not on AWS.
        tell: takes what a person should know.
        progress: show a bar of captions.

    Raises:
        ValueError: texts of another request are there, or no text was good enough.
    """
    table_format(output)
    store, name = store_and_key(output, endpoint_url)
    texts = _Texts(store, PurePosixPath(name).stem + ".written", work, workers)
    started = time.monotonic()
    with tqdm(total=count, desc="write", unit="caption", disable=not progress) as bar:
        refused = 0

        def seen(text: WrittenText) -> None:
            nonlocal refused
            if text.reason:
                refused += 1
                bar.set_postfix(refused=refused, refresh=False)
            else:
                bar.update()

        written = collect(work.vocabulary, count, work.config, texts.ask, seen)
    remark = written.remark(work.vocabulary)
    if remark:
        tell(remark)
    refused_uri = join_key(texts.place, "refused.jsonl")
    _write_rows(refused_uri, REFUSED, work, written.refused, endpoint_url)
    require(bool(written.taken), f"No caption could be written. {remark}")
    _write_rows(output, TAKEN, work, written.taken, endpoint_url)
    seconds = time.monotonic() - started
    return {
        "output": output,
        "num_captions": len(written.taken),
        "num_missing": written.num_missing,
        "num_refused": len(written.refused),
        "reasons": written.reasons(),
        "num_new_texts": texts.num_new,
        "seconds": round(seconds, 3),
        "captions_per_second": round(len(written.taken) / seconds, 2),
    }


def _write_rows(
    uri: str,
    columns: Mapping[str, Any],
    work: WritingWork,
    texts: Sequence[WrittenText],
    endpoint_url: str | None,
) -> None:
    """The rows of texts that were taken, or refused, as a table of these columns."""
    names, seed = work.vocabulary.class_names, work.config.seed
    with table_writer(uri, columns, endpoint_url) as write:
        write(
            [
                {
                    "caption_id": caption_id(work.vocabulary, work.writer_name, seed, each.task),
                    "caption": each.text,
                    "asked": [names[index] for index in sorted(each.task.classes)],
                    "labels": [names[index] for index in each.labels],
                    "attempt": each.task.attempt,
                    "reason": each.reason,
                }
                for each in texts
            ]
        )


class _Texts:
    """All texts that a request has brought so far; asks for the others."""

    def __init__(self, store: Store, folder: str, work: WritingWork, workers: Workers):
        """Reads what is there.

        Raises:
            ValueError: the folder holds texts of another request, or is damaged.
        """
        self._store, self._folder, self._work, self._workers = store, folder, work, workers
        self.place = f"{store.uri}/{folder}"
        self.num_new = 0
        self._keep_settings()
        self._known: dict[tuple[int, int], list[str]] = {}
        for key in store.list(f"{folder}/parts/"):
            self._read_part(key)

    def ask(self, tasks: Sequence[Task]) -> Iterator[list[str]]:
        """Texts for each task: those that are known, else new ones, which are stored first."""
        lacking = [task for task in tasks if (task.number, task.attempt) not in self._known]
        starts = range(0, len(lacking), PART_TASKS)
        parts = [lacking[start : start + PART_TASKS] for start in starts]
        coming = zip(parts, self._workers(self._work, parts), strict=True) if parts else iter(())
        for task in tasks:
            while (task.number, task.attempt) not in self._known:
                part, texts = next(coming)
                self._keep(part, texts)
            yield self._known[task.number, task.attempt]

    def _keep(self, part: Sequence[Task], texts: Sequence[list[str]]) -> None:
        lines = [
            json.dumps({"number": task.number, "attempt": task.attempt, "texts": each})
            for task, each in zip(part, texts, strict=True)
        ]
        # No other part begins so, for no task is asked for twice.
        key = f"{self._folder}/parts/{part[0].attempt:03d}-{part[0].number:07d}.jsonl"
        self._store.write(key, ("\n".join(lines) + "\n").encode())
        for task, each in zip(part, texts, strict=True):
            self._known[task.number, task.attempt] = each
            self.num_new += len(each)

    def _read_part(self, key: str) -> None:
        try:
            for line in self._store.read(key).splitlines():
                row = parse_json(line)
                self._known[row["number"], row["attempt"]] = [str(text) for text in row["texts"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(damaged(self._store, key, JOB)) from error

    def _keep_settings(self) -> None:
        """Writes what the texts depend on, or compares it."""
        key, ours = f"{self._folder}/settings.json", self._work.settings()
        if self._store.write_if_absent(key, json_bytes(ours)):
            return
        others = differences(ours, read_json(self._store, key, JOB))
        require(
            not others,
            f"{self.place} holds texts of another request ({'; '.join(others)}). Choose another "
            "output, or remove that folder.",
        )


def task_values(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Tasks as plain values."""
    return [asdict(task) for task in tasks]


def tasks_of(values: Sequence[dict[str, Any]]) -> list[Task]:
    """The tasks of plain values."""
    return [Task(**{**each, "classes": tuple(each["classes"])}) for each in values]
