"""Names: one spelling each, read back as written, refused with the nearest valid one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit import naming
from remit.errors import RemitError
from remit.naming import MASKING_STYLES, ModelName

models = st.builds(
    ModelName,
    d_model=st.integers(1, 1024).map(lambda n: 8 * n),
    num_layers=st.integers(1, 64),
    mask_percent=st.integers(5, 100),
    masking_style=st.sampled_from(sorted(MASKING_STYLES)),
)
channels = st.lists(
    st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,4}", fullmatch=True),
    min_size=1,
    max_size=20,
    unique_by=str.lower,
)


@given(models)
def test_a_model_name_is_read_back_as_written(model):
    assert ModelName.parse(str(model)) == model
    assert re.fullmatch(naming.WILDCARD_CONSTRAINTS["model"], str(model))


@given(st.text(max_size=60))
def test_a_text_is_a_model_name_only_in_its_one_spelling(text):
    try:
        model = ModelName.parse(text)
    except RemitError as error:
        assert "\n" not in str(error)
    else:
        assert str(model) == text


@given(models, st.sampled_from(["0{d}", "{d}"]), st.sampled_from(["0{m}", "{m}"]))
def test_a_number_with_a_leading_zero_is_no_name(model, d, m):
    name = (
        f"mamba2_eeg_d{d.format(d=model.d_model)}_l{model.num_layers}"
        f"_m{m.format(m=model.mask_percent)}_{model.masking_style}"
    )
    if name == str(model):
        return
    assert not re.fullmatch(naming.MODEL_PATTERN, name)
    with pytest.raises(RemitError, match=f"for example {model}\\."):
        ModelName.parse(name)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("mamba2_eeg_d0256_l2_m20_mae", "mamba2_eeg_d256_l2_m20_mae"),
        ("mamba2_eeg_d256_l2_m120_mae", "mamba2_eeg_d256_l2_m100_mae"),
        ("mamba2_eeg_d256_l2_m2_mae", "mamba2_eeg_d256_l2_m5_mae"),
        ("mamba2_eeg_d256_l2_m2O_mae", "mamba2_eeg_d256_l2_m20_mae"),
        ("mamba2_eeg_d256_l2_m20_brt", "mamba2_eeg_d256_l2_m20_bert"),
        ("mamba2_eeg_d256_l2_m20_mae_finetuned", "mamba2_eeg_d256_l2_m20_mae"),
        ("mamba2_eeg_d250_l2_m20_mae", "mamba2_eeg_d248_l2_m20_mae"),
        ("mamba2_eeg_d256_l99_m20_mae", "mamba2_eeg_d256_l64_m20_mae"),
        ("mamba_eeg_d256_l2_m20_mae", "mamba2_eeg_d256_l2_m20_mae"),
        ("MAMBA2_EEG_d256_l2_m20_MAE", "mamba2_eeg_d256_l2_m20_mae"),
        ("nonsense", "mamba2_eeg_d256_l2_m20_mae"),
    ],
)
def test_a_wrong_name_gets_the_nearest_valid_one(wrong, nearest):
    with pytest.raises(RemitError, match=f"for example {nearest}\\."):
        ModelName.parse(wrong)
    target = f"results/pretrained/{wrong}.pt"
    with pytest.raises(RemitError, match=f"Ask for results/pretrained/{nearest}.pt"):
        naming.model_of_target(target, *naming.read_target(target))


def test_a_target_is_read_into_its_kind_and_values():
    target = "results/finetuned/mamba2_eeg_d64_l1_m40_bert_finetuned_best.pt"
    kind, values = naming.read_target(target)
    assert kind == "finetuned"
    assert naming.model_of_target(target, kind, values) == ModelName(64, 1, 40, "bert")
    assert naming.read_target("results/primary/8s_af7_primary_dataset.parquet") == (
        "primary",
        {"dataset": "8s_af7"},
    )
    assert naming.read_target("results/nothing/of/ours") is None


@given(st.sampled_from([8.0, 2.5, 0.5, 10.0, 30.0, 0.25]), channels)
def test_a_dataset_name_says_seconds_and_channels(seconds, names):
    name = naming.dataset_name(seconds, names)
    assert re.fullmatch(naming.DATASET_PATTERN, name)
    length, listed = name.split("s_", 1)
    assert float(length) == seconds
    assert listed.split("-") == [n.lower() for n in names]


def test_a_dataset_of_many_channels_has_a_name_that_fits_a_disk():
    many = [f"E{number}" for number in range(256)]
    name = naming.dataset_name(8, many)
    assert re.fullmatch(naming.DATASET_PATTERN, name) and name.startswith("8s_256channels-")
    assert name != naming.dataset_name(8, many[::-1])
    assert len(naming.path("primary", dataset=name).rsplit("/", 1)[1]) < 60


def test_the_dataset_names_of_the_design():
    name = naming.dataset_name(8, ["AF7", "AF8", "TP9", "TP10"])
    assert naming.path("primary", dataset=name) == (
        "results/primary/8s_af7-af8-tp9-tp10_primary_dataset.parquet"
    )
    assert naming.mlflow_dataset_name(name, 720) == "EEG_8s_af7-af8-tp9-tp10_720windows_primary"


@pytest.mark.parametrize(
    "wrong", ["", "a/b", "..", "../x", ".hidden", "a b", "ä", "x" * 101, "a\n", "-a"]
)
def test_an_id_that_cannot_be_a_file_name_is_refused(wrong):
    with pytest.raises(RemitError, match="cannot be a file name"):
        naming.check_id("participant", wrong)


@given(
    unit=st.text("ab1-", min_size=1, max_size=5),
    times=st.integers(15, 25),
    rest=st.text("abc", max_size=3),
)
def test_an_id_that_snakemake_takes_for_endless_is_refused(unit, times, rest):
    """As its own detector says, of each id that is one but for that."""
    from snakemake.io import PeriodicityDetector

    value = f"x{unit * times}{rest}"[: naming.ID_MAX_LENGTH]
    if PeriodicityDetector().is_periodic(value) is None:
        assert naming.check_id("recording", value) == value
    else:
        with pytest.raises(RemitError, match="ends in 20 or more repetitions"):
            naming.check_id("recording", value)


@given(st.text(max_size=30))
def test_an_accepted_id_stays_inside_its_folder(text):
    try:
        naming.check_id("recording", text)
    except RemitError:
        return
    path = naming.path("windows", cohort="c", recording=text)
    assert path == f"results/windows/c/{text}.parquet"
    assert text not in {".", ".."}
    assert "/" not in text


@given(models)
def test_every_path_of_a_model_leads_back_to_it(model):
    others = {"cohort": "c", "dataset": "8s_cz", "repeat": "10", "fold": "5"}
    for kind, pattern in naming.PATTERNS.items():
        if "{model}" in pattern:
            needed = {key: value for key, value in others.items() if f"{{{key}}}" in pattern}
            file = naming.path(kind, model=str(model), **needed)
            assert naming.model_of_path(kind, file) == model
            assert naming.model_of_path(kind, f"/elsewhere/{file}") == model
            assert naming.read_target(file) == (kind, {"model": str(model), **needed})


def test_a_model_s_folder_and_its_fine_tuned_one_s_are_two():
    name = "mamba2_eeg_d64_l1_m40_bert"
    for target, kind, model in (
        (f"results/evaluation/{name}/report.html", "evaluation_page", name),
        (f"results/evaluation/{name}_finetuned/report.html", "model_report", name),
        # Nobody's: it reads as a model whose name is wrong, and never as `name` itself.
        (f"results/evaluation/{name}_finetuned/report.json", "evaluation", f"{name}_finetuned"),
        (f"results/predictions/{name}/c.parquet", "predictions_new", name),
        (f"results/predictions/{name}_finetuned/c.parquet", "predictions", name),
        (f"results/embeddings/{name}_random.parquet", "embeddings_random", name),
    ):
        found, values = naming.read_target(target)
        assert (found, values["model"]) == (kind, model)


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("evaluation", "report.json"),
        ("evaluation", "results/evaluation/nothing/report.json"),
        ("embeddings_random", "results/embeddings/mamba2_eeg_d64_l1_m40_bert.parquet"),
    ],
)
def test_a_path_without_a_model_is_refused(kind, file):
    with pytest.raises(RemitError, match="expected"):
        naming.model_of_path(kind, file)


@pytest.mark.parametrize("wrong", ["0", "01", "-1", "1000", ""])
def test_repeats_and_folds_are_counted_from_one(wrong):
    with pytest.raises(RemitError, match="does not fit"):
        naming.path("fold_split", dataset="8s_cz", repeat=wrong, fold="1")


def test_a_path_takes_no_value_that_is_not_a_name():
    with pytest.raises(RemitError, match="does not fit"):
        naming.path("pretrained", model="../../etc/passwd")
    with pytest.raises(ValueError, match="lacks a value"):
        naming.path("windows", cohort="c")
