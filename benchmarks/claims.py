"""Every claim of the paper on the embedded world: several seeds, one backbone, one table.

    python benchmarks/claims.py --output runs/claims

Synthesizes the same captions at the default guidance and at each of a sweep, and renders them (the
upper bound); then trains and measures every method on them. Differences are per seed. The same
command again goes on where it was left. Writes claims.md and claims.json into the output folder;
the last line of the output is a JSON summary.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from t2ipal.commands.running import FLAT, finish, parse, remark, run_job
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.experiments.claims import ClaimsConfig, claims_synthesis, run
from t2ipal.experiments.claims_table import markdown


@dataclass(frozen=True)
class Options(ClaimsConfig):
    """Tests the paper's claims."""

    synthesis: Annotated[SynthesisConfig, FLAT] = field(default_factory=claims_synthesis)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures and prints."""
    measured = run(parse(Options, arguments, __doc__), remark)
    print(markdown(measured))
    differences = {
        claim["claim"]: {name: round(d["mean"], 2) for name, d in claim["difference"].items()}
        for claim in measured["claims"]
    }
    finish({"output": measured["options"]["output"], "claims": differences})
    return measured


if __name__ == "__main__":
    run_job(main)
