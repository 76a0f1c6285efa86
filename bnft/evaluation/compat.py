"""The undocumented parts of pyautoattack that bnft uses, as they are in pyautoattack 0.2.0.

The attributes of the attack objects that `autoattack.py` reads and sets are undocumented too. See `bnft.common.compat`.
"""

from pyautoattack import checks


def forget_calls() -> None:
    """Reset the counters of `check_dynamic`, which would otherwise add to the counts of an earlier check."""
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))
