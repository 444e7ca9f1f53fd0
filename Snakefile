# remit: raw EEG -> windows -> primary dataset -> pretrained backbone -> fine-tuned classifier.
#
# Reads and checks the configuration, includes the rules and names the targets. Imports nothing
# heavy: this file is parsed at every call.
import sys
from pathlib import Path

try:
    from remit import naming
    from remit.errors import RemitError
    from remit.planning import (
        Plan,
        asks_for_report,
        check_whole,
        failures,
        lock_hint,
        models_of,
        targets_of,
    )
except ModuleNotFoundError as error:
    sys.exit(
        f"remit: the package is not installed in {sys.prefix} ({error}); "
        "expected an environment made by 'make env'; run it and call .venv/bin/snakemake."
    )


configfile: Path(workflow.basedir) / "config" / "config.yaml"


try:
    PLAN = Plan(config)
    within = not workflow.modifier.is_main_snakefile()
    PLAN.check(targets_of(sys.argv[1:], module=within))
    PLAN.export()
except RemitError as error:
    sys.exit(f"remit: {error}")

if workflow.is_main_process and (hint := lock_hint(sys.argv[1:])):
    print(hint, file=sys.stderr)


if asks_for_report(sys.argv[1:]):  # its first screen is made of the files there are
    from remit.report.front import FrontPage

    config["front_page"] = FrontPage(
        models_of(PLAN, sys.argv[1:]), PLAN.config.cohort, PLAN.dataset
    )


report: "workflow/report/workflow.rst"


wildcard_constraints:
    **naming.WILDCARD_CONSTRAINTS,


include: "workflow/rules/recordings.smk"
include: "workflow/rules/dataset.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/diagnostics.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"


onstart:
    needed = list(workflow.dag.needrun_jobs())
    made = {file for job in needed for file in job.output}
    try:
        check_whole(
            file for job in needed for file in job.input if file not in made
        )
    except RemitError as error:
        sys.exit(f"remit: {error}")


onerror:
    for line in failures([log] if isinstance(log, str) else log):
        print(f"In short: {line}", file=sys.stderr)


rule all:
    default_target: True
    input:
        naming.path("finetuned", model=str(PLAN.default_model)),
        naming.path("model_report", model=str(PLAN.default_model)),
        PLAN.pictures(str(PLAN.default_model)),
        PLAN.figures(),
        naming.path("run_resources"),


rule evaluation:
    input:
        naming.path("evaluation_page", model=str(PLAN.default_model)),
        naming.path("model_card", model=str(PLAN.default_model)),


rule sweep:
    input:
        naming.path("comparison"),
        naming.path("comparison_page"),
        naming.path("comparison_parquet"),
        naming.path("comparison_picture"),
