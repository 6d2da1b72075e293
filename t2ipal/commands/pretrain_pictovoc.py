r"""Trains the embedded world's models from scratch: CLIP, judge, autoencoder, UNet, tuned decoder.

Everything, one stage after the other (about two hours on two cores with AVX-512 and bfloat16):

    python jobs/pretrain_pictovoc.py --output runs/pictovoc --num-threads 2

One stage, or the UNet on both cores together:

    python jobs/pretrain_pictovoc.py --stage clip --output runs/pictovoc
    torchrun --nproc-per-node 2 jobs/pretrain_pictovoc.py --stage diffusion --output runs/pictovoc

Only the measures of the CLIP that ships, and how it reads sentences of people:

    python jobs/pretrain_pictovoc.py --stage clip --check-only --output t2ipal/pictovoc/weights \
        --captions captions_val2017.json

The same command again goes on from the last checkpoint. `--output t2ipal/pictovoc/weights` replaces
the models that ship. The last line of the output is a JSON summary.
"""

from collections.abc import Sequence
from typing import Any

from t2ipal.commands.running import finish, parse
from t2ipal.pretraining.stages import StagesConfig, run_stages


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    return finish(run_stages(parse(StagesConfig, arguments, __doc__)))
