"""MLflow, and the only room that imports it.

Every number is written to files by the stage that makes it; MLflow gets a copy. What a run is to hold
goes first to a journal, one line of JSON for each entry, and from there a thread of its own sends it:
no training waits for a server, or ends with one. A journal is removed when all of it was sent; what is
left, `remit mlflow sync` sends. Sending an entry twice leaves what sending it once does: metrics keep
the time at which they were logged, a run is found again by the tag of its journal, and a model is
registered for a run that has none. Runs find each other by tags: a checkpoint's SHA-256 leads to the
run that made it, and a sweep's run puts those of its models below itself.
"""

from remit.tracking.sender import JOURNAL_TAG, sync
from remit.tracking.tracker import Tracker, last_run, tags_of_model

__all__ = ["JOURNAL_TAG", "Tracker", "last_run", "sync", "tags_of_model"]
