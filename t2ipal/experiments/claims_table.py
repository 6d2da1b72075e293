"""What the claims compare: the rows of their table, the paper's claims, and differences.

Owns what is asked and how the answer is written down; trains nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from t2ipal.evaluation.evaluate import Summary, summarize


@dataclass(frozen=True)
class Setting:
    """What is trained, once a seed."""

    images: str
    """Name of the image set; methods that learn from captions alone stand at `synthetic`."""
    method: str
    """Name of the recipe."""
    images_per_caption: int | None = None
    """Only the first so many; None: all, or none at all."""
    choice: str | None = None
    """Name of a choice among the images; None: all of them."""
    num_captions: int | None = None
    """Only the first so many captions, for the same number of steps; None: all."""


Row = tuple[str, str, Setting]
"""Question that a row of the table belongs to, what the row shows, and its setting."""
Results = Mapping[int, Mapping[str, float]]
"""Seed -> test set -> mAP, of one setting."""

ZERO_SHOT = Setting("synthetic", "zsclip")
TAI_DPT = Setting("synthetic", "tai_dpt")
BASELINES = {"TaI-DPT": TAI_DPT, "zero-shot": ZERO_SHOT}
KINDS = ("synthetic", "rendered")


def guidance_set(scale: float, default: float) -> str:
    """Name of the image set of a guidance scale."""
    return "synthetic" if scale == default else f"guidance-{scale:g}"


def plan_rows(
    main_images: int,
    image_counts: Sequence[int],
    guidance_scales: Sequence[float],
    default_scale: float,
    sweep_images: int,
    num_labeled: int,
    caption_counts: Sequence[int],
) -> list[Row]:
    """All rows in their order; some settings stand in several."""
    images = [
        ("T2I-PAL without adapter", "t2ipal_no_adapter"),
        ("T2I-PAL, adapter on the global score", "t2ipal_global_adapter"),
        ("T2I-PAL, images only", "t2ipal_images_only"),
        ("T2I-PAL", "t2ipal"),
    ]
    rows = [
        ("captions", "zero-shot CLIP", ZERO_SHOT),
        ("captions", "TaI", Setting("synthetic", "tai")),
        ("captions", "TaI-DPT", TAI_DPT),
        ("captions", "TaI-DPT with adapter", Setting("synthetic", "tai_dpt_adapter")),
    ]
    for kind in KINDS:
        for title, method in images:
            rows.append((f"{kind} images", title, Setting(kind, method, main_images)))
    labeled = Setting(f"labeled-{num_labeled}", "t2ipal_images_only")
    rows.append(("labeled scenes", f"{num_labeled} in place of images and captions", labeled))
    for count in image_counts:
        rows.append(("images a caption", str(count), Setting("synthetic", "t2ipal", count)))
    for scale in sorted({*guidance_scales, default_scale}):
        for title, method in (("", "t2ipal"), (", images only", "t2ipal_images_only")):
            setting = Setting(guidance_set(scale, default_scale), method, sweep_images)
            rows.append((f"guidance, {sweep_images} images", f"{scale:g}{title}", setting))
    for captions in (*caption_counts, None):
        for kind in KINDS:
            for count in sorted({min(image_counts), main_images}):
                setting = Setting(kind, "t2ipal", count, num_captions=captions)
                rows.append((f"{captions or 'all'} captions", f"{count} of each, {kind}", setting))
    return rows


def plan_claims(main_images: int, fewest_images: int) -> list[tuple[str, Setting, Setting]]:
    """What the paper claims: in words, the better setting and the worse one."""
    claims = [("TaI-DPT over zero-shot CLIP", TAI_DPT, ZERO_SHOT)]
    for kind in KINDS:
        ours = Setting(kind, "t2ipal", main_images)
        claims.append((f"{kind} images: T2I-PAL over TaI-DPT", ours, TAI_DPT))
        for words, method in (
            ("with captions over images only", "t2ipal_images_only"),
            ("adapter over no adapter", "t2ipal_no_adapter"),
            ("local over global adapter", "t2ipal_global_adapter"),
        ):
            claims.append((f"{kind} images: {words}", ours, Setting(kind, method, main_images)))
    words = f"synthetic images: {main_images} a caption over {fewest_images}"
    few, many = (Setting("synthetic", "t2ipal", n) for n in (fewest_images, main_images))
    return [*claims, (words, many, few)]


def by_seed(results: Results, test_set: str) -> Summary:
    """mAP over seeds."""
    return summarize([maps[test_set] for maps in results.values()], list(results))


def paired(ours: Results, theirs: Results, test_set: str) -> Summary:
    """Difference of mAP, seed by seed; a method without training has one result for all seeds."""
    seeds = list(max(ours, theirs, key=len))

    def at(results: Results, seed: int) -> float:
        return results[seed if len(results) > 1 else next(iter(results))][test_set]

    return summarize([at(ours, seed) - at(theirs, seed) for seed in seeds], seeds)


def measure(
    rows: Sequence[Row],
    claims: Sequence[tuple[str, Setting, Setting]],
    results: Mapping[Setting, Results],
    judge_share: Callable[[Setting], float | None],
    test_sets: Sequence[str],
) -> dict[str, Any]:
    """All numbers as plain values, the content of claims.json."""
    table = []
    for question, title, setting in rows:
        measured = {}
        for test_set in test_sets:
            ours = results[setting]
            over = {
                name: asdict(paired(ours, results[baseline], test_set))
                for name, baseline in BASELINES.items()
                if setting != baseline
            }
            measured[test_set] = {**asdict(by_seed(ours, test_set)), "over": over}
        share = judge_share(setting)
        row = {"question": question, "title": title, **asdict(setting)}
        table.append({**row, "judge_share": share, "mAP": measured})
    verdicts = [
        {
            "claim": words,
            "difference": {
                name: asdict(paired(results[better], results[worse], name)) for name in test_sets
            },
        }
        for words, better, worse in claims
    ]
    return {"test_sets": list(test_sets), "rows": table, "claims": verdicts}


def markdown(measured: Mapping[str, Any]) -> str:
    """The table of all rows, and a line for each claim."""
    head, test_sets = ["", "", "judge finds"], measured["test_sets"]
    for name in test_sets:
        head += [name, *(f"over {baseline}" for baseline in BASELINES)]
    lines = [table_line(head), table_line(["---", "---", *["---:"] * (len(head) - 2)])]
    before = ""
    for row in measured["rows"]:
        question, share = row["question"], row["judge_share"]
        cells = ["" if question == before else question, row["title"]]
        cells.append("" if share is None else f"{100 * share:.0f}%")
        for name in test_sets:
            numbers = row["mAP"][name]
            over = [numbers["over"].get(baseline) for baseline in BASELINES]
            cells += [number(numbers), *(number(o, "+") if o else "" for o in over)]
        lines.append(table_line(cells))
        before = question
    lines.append("")
    for claim in measured["claims"]:
        told = []
        for name, numbers in claim["difference"].items():
            wins = sum(value > 0 for value in numbers["mAPs"])
            seeds = f"{wins} of {len(numbers['seeds'])} seeds"
            told.append(f"{name} {number(numbers, '+')} ({seeds})")
        lines.append(f"- {claim['claim']}: {', '.join(told)}")
    for kind, share in measured.get("variance_within", {}).items():
        lines.append(f"- Variance of CLIP's features within captions: {share:.1%} ({kind} images)")
    return "\n".join(lines) + "\n"


def table_line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def number(numbers: Mapping[str, Any], sign: str = "") -> str:
    """Mean and, of several seeds, standard deviation."""
    spread = f" ± {numbers['std']:.1f}" if len(numbers["seeds"]) > 1 else ""
    return f"{numbers['mean']:{sign}.1f}{spread}"
