# remit: raw EEG -> windows -> primary dataset -> pretrained backbone -> fine-tuned classifier.
#
# Reads and checks the configuration, includes the rules and names the targets. Imports nothing
# heavy: this file is parsed at every call.
import sys
from pathlib import Path

try:
    from remit import naming
    from remit.errors import RemitError
    from remit.planning import Plan, failures, targets_of
except ModuleNotFoundError as error:
    sys.exit(
        f"remit: the package is not installed in {sys.prefix} ({error}); "
        "expected an environment made by 'make env'; run it and call .venv/bin/snakemake."
    )


configfile: Path(workflow.basedir) / "config" / "config.yaml"


try:
    PLAN = Plan(config)
    PLAN.check(targets_of(sys.argv[1:]))
    PLAN.export()
except RemitError as error:
    sys.exit(f"remit: {error}")


wildcard_constraints:
    **naming.WILDCARD_CONSTRAINTS,


include: "workflow/rules/recordings.smk"
include: "workflow/rules/dataset.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/diagnostics.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/report.smk"


onerror:
    for line in failures([log] if isinstance(log, str) else log):
        print(f"In short: {line}", file=sys.stderr)


rule all:
    default_target: True
    input:
        naming.path("finetuned", model=str(PLAN.default_model)),
        naming.path("model_report", model=str(PLAN.default_model)),


rule sweep:
    input:
        naming.path("comparison"),
        naming.path("comparison_page"),
