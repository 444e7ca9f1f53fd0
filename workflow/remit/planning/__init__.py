"""What Snakemake needs to know to plan a run: which recordings, which settings for which rule.

Imported by the Snakefile at every parse, so it stays light: standard library, pydantic and the
sheet's reader. Each part stands on the one before: the cohorts' :mod:`recordings`, the
:mod:`results` to be made of them, the :mod:`settings` of each rule with the :mod:`versions` of its
stage, the :mod:`plan` that refuses what cannot be; and :mod:`run`, about a call of Snakemake.
"""

from remit.planning.plan import Plan
from remit.planning.run import (
    asks_for_report,
    check_whole,
    failures,
    lock_hint,
    models_of,
    targets_of,
)
from remit.planning.versions import result_version, stage_version

__all__ = [
    "Plan",
    "asks_for_report",
    "check_whole",
    "failures",
    "lock_hint",
    "models_of",
    "result_version",
    "stage_version",
    "targets_of",
]
