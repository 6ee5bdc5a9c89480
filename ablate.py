"""Tell whether a change of the model helps: ``python ablate.py --baseline yolov5n.yaml --variants my.yaml``.

    python ablate.py --data d.yaml --baseline yolov5n.yaml --variants yolov5n-biformer.yaml same=yolov5n.yaml
    python ablate.py --data d.yaml --variants "+BiFormerBlock@after:sppf"  # the baseline with a row more
    python ablate.py --resume runs/ablate/exp              # after an interruption
    python ablate.py --resume runs/ablate/exp --seeds 3 4  # two seeds more

Every model is trained with every seed, on the same budget; tables with a verdict on each difference and a picture go to
``runs/ablate/``. See docs/ablation.md. Exit codes: 0 done; 2 a wrong option, or files that cannot be used.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from engine.cli import run_command
from engine.options.ablate import AblateOptions
from utils.log import setup_logging

if TYPE_CHECKING:
    from engine.ablation import AblationResult


def parse_opt() -> AblateOptions:
    """Read the command line."""
    return AblateOptions.parse(description=__doc__.split(":")[0])


def main(opt: AblateOptions) -> AblationResult:
    """Run what is left to run, and report."""
    from engine.ablation import ablate  # noqa: PLC0415 - --help must not wait for torch

    return ablate(opt)


def run(**kwargs: Any) -> AblationResult:
    """Ablate from Python: ``ablate.run(data="d.yaml", variants=["my.yaml"])``; keywords are the flags with ``_``.

    Returns:
        Folder, a summary of each model, and the report.

    Raises:
        OptionError: when a keyword is no flag of this command, or does not fit the ablation to go on with.
    """
    setup_logging()
    return main(AblateOptions.from_kwargs(**kwargs))


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(parse_opt())))
