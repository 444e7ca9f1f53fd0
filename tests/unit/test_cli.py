"""Help that ends with a right example, and slips that end with one line."""

import argparse
import re
import shlex

import pytest

from remit import cli, naming
from remit.cli import arguments
from remit.config import Config

from ..conftest import ROOT, remit


def parsers(parser=None, words=("remit",)):
    """Every command's words and parser, the groups and remit itself among them."""
    parser = parser or cli._parser()
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from parsers(inner, (*words, name))


ALL = {" ".join(words): parser for words, parser in parsers()}


def examples(parser):
    """The command lines of the example, each in words."""
    text = parser.format_help().rpartition("\nexample:\n")[2].replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.startswith("  ")]


@pytest.fixture
def settings_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.json").write_text("{}")


@pytest.mark.parametrize("command", ALL)
def test_every_help_ends_with_an_example_that_is_right(command, settings_file):
    found = examples(ALL[command])
    assert found, "no example"
    own = 0
    for program, *words in found:
        if program == "remit":
            args = cli._parser().parse_args(words)
            own += args.run is not None and " ".join(["remit", *words]).startswith(command)
        elif program == "snakemake":
            target = next(word for word in words if "/" in word)
            kind, values = naming.read_target(target)
            assert naming.path(kind, **values) == target
        else:
            assert (program, words) == ("eval", ["$(remit completion bash)"])
            own += 1
    assert own


def test_the_examples_name_what_the_default_configuration_names():
    config = Config()
    assert str(config.model.name) == arguments.MODEL
    assert config.dataset == arguments.DATASET


def rule_lines():
    """The subcommand and the options of every rule's shell line."""
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        for line in re.findall(r'"remit ([^"]+?) 2>&1', file.read_text(encoding="utf-8")):
            yield line.split(" --")[0], set(re.findall(r"--[\w-]+", line))


def test_an_example_has_the_options_of_a_rule():
    of_rules = {}
    for name, options in rule_lines():
        of_rules.setdefault(name, []).append(options)
    assert len(of_rules) >= 20
    for name, possible in of_rules.items():
        if name == "simulate":  # its example is a person's own, without a rule
            continue
        (line, *_) = examples(ALL[f"remit {name}"])
        options = {word for word in line if word.startswith("--")}
        # What a rule gives and the configuration may leave empty, the example does without.
        rest = [rule - options for rule in possible if options <= rule]
        assert rest and min(map(len, rest)) <= 1, (name, options, possible)


SLIPS = {
    "": "the following arguments are required: command; 'remit --help' shows",
    "finetun": "command 'finetun' is not known; .* Did you mean 'finetune'",
    "cohort": "remit cohort: the following arguments are required: command",
    "cohort scna x": "expected one of sheet, scan. Did you mean 'scan'",
    "predict": "required: RECORDING, --model; 'remit predict --help' shows",
    "predict --model": "argument --model: expected one argument",
    "predict --model mamba2_eeg_d256_l2_m20_mea x.edf": "is no model name; expected mamba2_eeg_d<",
    "cohort scan . --ouput c.tsv": "no option --ouput; expected one of .* Did you mean '--output'",
    "cohort scan . --layout=bid --output c": "--layout 'bid' is not known; .* Did you mean 'bids'",
    "cohort scan gone --output c.tsv": "gone: is not there; expected the folder",
    "doctor extra": "unrecognized arguments: extra",
    "doctor --config .": r"\.: cannot be read \(Is a directory\); expected a configuration",
    "doctor --execution '{\"devise\": 1}'": "no setting 'devise'; .* Did you mean 'device'",
    "doctor --execution @gone.json": "gone.json cannot be read .*; expected an object",
    "split --settings {bad --primary a --output b": "{bad is no JSON .*; expected an object",
    "split --settings [] --primary a --output b": "is no JSON object; expected an object",
    "split --settings @. --primary a --output b": r"\. cannot be read \(Is a directory\)",
    "split --settings {} --primary gone.parquet --output b": "gone.parquet: is not there; expected",
    "split --settings {} --primary . --output b": r"\.: cannot be read as parquet .*; expected",
    "split --settings {} --primary data.csv --output b": "data.csv: cannot be read as parquet",
    "windows --settings {} --input a --output b": r"--settings has no '\w+'; expected it",
    "simulate --output s --participants many": "--participants: invalid int value: 'many'",
    "simulate --output s --participants 0": r"participants: .* \(found 0\); correct it",
    "verify": "found nothing to verify; expected results",
    "verify .": "is no file; expected a result's file",
}


@pytest.mark.parametrize("words", SLIPS)
def test_a_slip_is_one_line_with_what_to_do(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    try:
        code = cli.main(shlex.split(words))
    except SystemExit as left:
        code = left.code
    shown = capsys.readouterr()
    assert code in (1, 2)
    assert shown.out == ""
    assert shown.err.startswith("remit") and shown.err.count("\n") == 1, shown.err
    assert "internal error" not in shown.err
    assert re.search(SLIPS[words], shown.err), shown.err


def test_execution_settings_that_are_spoilt_on_the_way_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REMIT_EXECUTION", "{")
    assert cli.main(["mlflow", "sync"]) == 1
    assert "REMIT_EXECUTION: { is no JSON" in capsys.readouterr().err


def test_a_misspelt_option_with_its_value_in_one_word_is_found(capsys):
    with pytest.raises(SystemExit):
        cli.main(["predict", "--modle=x", "a.edf"])
    assert "no option --modle; expected" in capsys.readouterr().err


def test_an_option_may_still_be_shortened_and_a_file_may_begin_with_dashes():
    args = cli._parser().parse_args(["predict", "--mod", "x", "--", "--a.edf"])
    assert args.model == "x" and str(args.recordings[0]) == "--a.edf"


def test_what_an_error_repeats_cannot_command_a_terminal(capsys):
    with pytest.raises(SystemExit):
        cli.main(["\x1b[31mred"])
    assert "\\x1b[31mred" in capsys.readouterr().err


def test_an_unreadable_file_is_one_line(tmp_path):
    # root reads everything, so the system is asked for what nobody may open
    done = remit("doctor", "--config", "/proc/self/mem", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout.count("\n") == 1
    assert done.stdout.startswith("remit: /proc/self/mem: ")
