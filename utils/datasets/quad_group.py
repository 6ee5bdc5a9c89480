"""How many images ``--quad`` makes one of. The options need it too, so nothing slow is imported here."""

from __future__ import annotations

from utils.errors import OptionError

GROUP = 4


def require_group(batch_size: int, processes: int = 1) -> None:
    """Refuse a batch that ``--quad`` can make nothing of.

    Args:
        batch_size: images over all processes.
        processes: that share them evenly.

    Raises:
        OptionError: when a process gets less than one group.
    """
    if batch_size // processes < GROUP:
        each = f" in each of the {processes} processes" if processes > 1 else ""
        raise OptionError(
            f"--batch-size {batch_size}: expected {GROUP} or more{each}, as --quad joins {GROUP} images to one"
        )
