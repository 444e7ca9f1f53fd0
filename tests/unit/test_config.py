"""The configuration: strict, with suggestions, and its three generated files up to date."""

from pathlib import Path

import pytest
import yaml

from remit import config
from remit.configdoc import default_yaml, files
from remit.errors import RemitError, did_you_mean
from remit.recordings.channels import check_channels, electrode_names

ROOT = Path(__file__).parents[2]
OTHERS = {"cohorts": {"simulated": {"simulate": {}}, "b": {"sheet": "x"}}}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"pretrainng": {}}, "unknown setting 'pretrainng'.*Did you mean 'pretraining'"),
        (
            {"pretraining": {"epoch": 3}},
            "unknown setting 'pretraining.epoch'.*Did you mean 'epochs'",
        ),
        (
            {"cohorts": {"simulated": {"simulate": {"effct": 1}}}},
            "unknown setting 'cohorts.simulated.simulate.effct'.*Did you mean 'effect'",
        ),
        ({"model": {"masking_style": "bart"}}, "'bart'.*mae, bert.*Did you mean 'bert'"),
        ({"model": {"d_model": 100}}, "d_model is 100.*multiple of 8.*nearest is 96"),
        ({"sweep": {"masking_styles": ["mea"]}}, "'mea' is no masking style.*Did you mean 'mae'"),
        ({"sweep": {"mask_percents": [120]}}, "less than or equal to 100; found 120"),
        ({"preprocessing": {"lowpass": {"cutoff_hz": 200}}}, "lowpass.cutoff_hz is 200.*128 Hz"),
        ({"preprocessing": {"window_seconds": 0.3}}, "whole number"),
        ({"preprocessing": {"overlap_seconds": 8}}, "less than window_seconds"),
        ({"preprocessing": {"overlap_seconds": 0.001}}, r"0\.256 samples; expected a whole number"),
        ({"preprocessing": {"highpass": {"cutoff_hz": 80}}}, "highpass.cutoff_hz is 80.*60 Hz"),
        ({"sequences": {"token_seconds": 0.3}}, "divides window_seconds"),
        ({"split": {"validation": 0.6, "test": 0.4}}, "less than 1"),
        ({"cohort": "simulatd"}, "Did you mean 'simulated'"),
        ({"cohorts": {"a/b": {"simulate": {}}}}, "cannot be a file name"),
        ({"cohorts": {"a": {}}}, "exactly one of simulate, sheet, scan"),
        (
            {"cohorts": {"a": {"simulate": {}, "sheet": "x"}}},
            "exactly one of simulate, sheet, scan",
        ),
        ({"pretraining": {"extra_cohorts": ["simulated"]}}, "leave it out"),
        ({"pretraining": {"extra_cohorts": ["a", "a"]}}, "a stands there more than once"),
        (
            {"pretraining": {"corpus_weights": {"simulatd": 2}}},
            "corpus_weights names 'simulatd', which .* does not use.*Did you mean 'simulated'",
        ),
        ({"pretraining": {"corpus_weights": {"simulated": 0}}}, "greater than 0; found 0"),
        ({"pretraining": {"shuffle_mb": 0}}, "shuffle_mb: Input should be greater than 0"),
        (
            {"cohorts": {"simulated": {"simulate": {}, "channels": ["AF7"]}}},
            r"cohorts.simulated.channels is \['AF7'\], but channels, .*; set channels only",
        ),
        (
            {"cohorts": {"simulated": {"simulate": {}}, "b": {"sheet": "x", "channels": []}}},
            "expected at least one",
        ),
        (
            {
                "cohorts": {"simulated": {"simulate": {}}, "b": {"sheet": "x", "channels": ["Cz"]}},
                "pretraining": {"extra_cohorts": ["b"]},
                "preprocessing": {"reference": "Cz"},
            },
            "reference is Cz, which is one of the channels of cohort 'b'",
        ),
        ({"pretraining": {"learning_rate": float("nan")}}, "pretraining.learning_rate"),
        ({"pretraining": {"waveform_weight": 0, "spectrum_weight": 0}}, "expected one above 0"),
        ({"channels": ["AF7", "af7"]}, "each once"),
        ({"channels": ["../x"]}, "letters and digits only"),
        ({"channels": "AF7"}, "channels: Input should be a valid list"),
        *(
            ({"preprocessing": {"notch": {"frequencies_hz": wrong}}}, "a list of them such as")
            for wrong in ("50", -50, [50, "x"], [0], True, float("nan"), {}, None, "line")
        ),
        ({"preprocessing": {"reference": "Average"}}, "Did you mean 'average'"),
        ({"preprocessing": {"reference": "linked mastoids"}}, "Did you mean 'linked_mastoids'"),
        ({"preprocessing": {"reference": "none"}}, "expected null, without quotes"),
        ({"preprocessing": {"reference": []}}, "is no reference; expected null, average"),
        ({"preprocessing": {"reference": ["Cz", 1]}}, "is no reference; expected null, average"),
        ({"preprocessing": {"reference": 5}}, "preprocessing.reference: is no reference"),
        ({"pretraining": {"own_cohort": False}}, "extra_cohorts is empty; expected somebody"),
        (
            OTHERS | {"pretraining": {"own_cohort": False, "extra_cohorts": ["b"]}},
            "own_cohort is false and evaluation.pretraining 'per_fold'; expected 'held_out'",
        ),
        (
            OTHERS
            | {
                "pretraining": {
                    "own_cohort": False,
                    "extra_cohorts": ["b"],
                    "transductive": True,
                }
            },
            "own_cohort is false and transductive true",
        ),
        (
            OTHERS
            | {
                "pretraining": {
                    "own_cohort": False,
                    "extra_cohorts": ["b"],
                    "corpus_weights": {"simulated": 2},
                },
                "evaluation": {"pretraining": "held_out"},
            },
            "corpus_weights names 'simulated', which pretraining does not use",
        ),
        ({"evaluation": {"pretraining": "perfold"}}, "evaluation.pretraining: .*'per_fold'"),
        ({"evaluation": {"folds": 1}}, "evaluation.folds: .*greater than or equal to 2; found 1"),
        ({"evaluation": {"repeats": 1000}}, "evaluation.repeats: .*999; found 1000"),
        ({"evaluation": {"permutations": 0}}, "evaluation.permutations: .*19; found 0"),
        ({"evaluation": {"strengths": []}}, "evaluation.strengths: .*at least 1 item"),
        ({"evaluation": {"strengths": [1, 1.0]}}, "1.0 stands there more than once"),
        ({"evaluation": {"permutation": 5}}, "Did you mean 'permutations'"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(values, says):
    with pytest.raises(RemitError, match=says) as caught:
        config.validate(values, "mine.yaml")
    assert str(caught.value).startswith("mine.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "taken"),
    [(50, [50.0]), (49.5, [49.5]), ([50, 100], [50.0, 100.0]), ("mains", "mains"), ([], [])],
)
def test_notch_frequencies(given, taken):
    notch = config.validate({"preprocessing": {"notch": {"frequencies_hz": given}}})
    assert notch.preprocessing.notch.frequencies_hz == taken
    again = config.validate(notch.model_dump(mode="json"))
    assert again == notch
    schema = config.Config.model_json_schema()["$defs"]["Notch"]["properties"]["frequencies_hz"]
    assert {each.get("type") for each in schema["anyOf"]} == {"number", "array", "string"}


@pytest.mark.parametrize("reference", [None, "average", "linked_mastoids", "Cz", ["M1", "M2"]])
def test_references(reference):
    settings = config.validate({"preprocessing": {"reference": reference}})
    assert settings.preprocessing.reference == reference


@pytest.mark.parametrize(
    ("channels", "reference", "says"),
    [
        (["af7", "AF8"], None, "channels: 'af7' is no electrode.*Did you mean 'AF7'"),
        (["AF7", "XX1"], None, "channels: 'XX1' is no electrode; expected names of the 10-10"),
        (["T3"], None, "Did you mean 'T7'"),
        (["AF7"], "Averge", "preprocessing.reference: 'Averge'.*Did you mean 'average'"),
        (["AF7"], "cz", "preprocessing.reference: 'cz'.*Did you mean 'Cz'"),
        (["AF7"], ["M1", "average"], "preprocessing.reference: 'average' is no electrode"),
        (["AF7"], ["M1", "M1"], "preprocessing.reference: M1 stands there more than once"),
    ],
)
def test_channels_and_references_that_nobody_has(channels, reference, says):
    with pytest.raises(RemitError, match=says) as caught:
        check_channels(channels, reference)
    assert "\n" not in str(caught.value)
    for sound in (None, "average", "linked_mastoids", "Cz", ["M1", "M2"]):
        check_channels(["AF7", "T7", "TP10"], sound)
    check_channels(electrode_names(), None)


def test_the_defaults_are_those_of_the_issue():
    defaults = config.validate({})
    assert str(defaults.model.name) == "mamba2_eeg_d256_l2_m50_mae"
    assert defaults.dataset == "8s_af7-af8-tp9-tp10"
    assert (defaults.split.validation, defaults.split.test) == (0.2, 0.1)
    tuning = defaults.finetuning
    assert (tuning.epochs, tuning.batch_size, tuning.learning_rate) == (50, 8, 1e-4)
    assert (tuning.weight_decay, tuning.gradient_clip, tuning.freeze_backbone) == (0.01, 1.0, True)


def test_generated_files_are_what_the_model_gives():
    for file, text in files(ROOT).items():
        assert file.read_text(encoding="utf-8") == text, f"{file} differs: run 'remit config'"


def test_the_default_file_gives_the_defaults():
    assert config.validate(yaml.safe_load(default_yaml())) == config.Config()


@pytest.mark.parametrize("preset", sorted((ROOT / "config" / "presets").glob("*.yaml")), ids=str)
def test_every_preset_is_valid(preset):
    config.load(preset)


def test_a_file_that_is_no_configuration(tmp_path):
    for text, says in [
        ("- a\n- b\n", "holds list"),
        ("a: [", "is not YAML"),
        ("x: 1", "unknown setting"),
    ]:
        file = tmp_path / "c.yaml"
        file.write_text(text)
        with pytest.raises(RemitError, match=says):
            config.load(file)
    with pytest.raises(RemitError, match="cannot be read"):
        config.load(tmp_path / "none.yaml")


def test_every_setting_has_a_description():
    schema = config.Config.model_json_schema()
    for name, model in [("Config", schema), *schema["$defs"].items()]:
        for key, field in model["properties"].items():
            described = field.get("description") or "$ref" in field
            assert described, f"{name}.{key}"


def test_did_you_mean_knows_when_nothing_is_near():
    assert did_you_mean("zzz", ["epochs", "seed"]) == ""


def test_made_up_people_may_stand_beside_the_simulated_cohort_and_recordings_may_not():
    """To be predicted; whoever names recordings of their own and no cohort has forgotten that."""
    simulated = {"simulated": {"simulate": {}}, "new": {"simulate": {"seed": 8}}}
    assert config.validate({"cohorts": simulated}).cohort == "simulated"
    with pytest.raises(RemitError, match="cohorts has 'mine', .* set cohort: mine"):
        config.validate({"cohorts": simulated | {"mine": {"sheet": "x.tsv"}}})
