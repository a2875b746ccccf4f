"""The garbage collector of a process that serves functions and does nothing else."""

import gc
from typing import Final

YOUNG: Final = 10_000
"""How many more objects there may be than at the last look before the youngest are looked through.

The interpreter's own number (700, since Python 3.12 2,000) is passed with every few branches of a handler,
which all live until its call ends. Looking through them, again and again, takes a quarter of the host's time
where many steps stand beside each other, and finds nothing: a call of ours leaves no cycles behind (a test
holds that). So this bounds what the code of users and libraries leaves: some ten thousand objects, a few MB.
"""


def tune() -> None:
    """Let the collector leave what the process has loaded alone, and look for cycles less often.

    To be called once, after the app is loaded, and before workers are forked if they are: pages that the
    collector does not touch stay shared. A collector that is off stays off, a higher threshold stays.
    """
    gc.collect()
    gc.freeze()
    young = gc.get_threshold()[0]
    if 0 < young < YOUNG:
        gc.set_threshold(YOUNG)
