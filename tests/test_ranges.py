"""Numbers beyond their range are refused by name, before anything is read."""

import math
import pathlib
import runpy
import types

import pytest

from modal_aware_jax import build
from modal_aware_jax.experiment.losses import default_options
from modal_aware_jax.experiment.ranges import OF_LOSSES, RANGES, check_ranges
from modal_aware_jax.experiment.tasks import TASKS
from modal_aware_jax.modes.train import fit_run
from modal_aware_jax.tasks.pair_training import pair_loss

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


def config_of(name, arguments="", **changes):
    config = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](arguments)
    for key, value in changes.items():
        section, _, key = key.partition("__")
        config[section][key] = value
    return config


def test_every_config_is_within_the_ranges_which_are_of_keys_that_there_are():
    keys = set()
    for path in CONFIGS.glob("*.py"):
        config = config_of(path.stem)
        check_ranges(config)
        for section in ("data", "model", "loss", "optimizer", "training", "retrieval"):
            keys |= {f"{section}.{key}" for key in config.get(section, {})}
            options = config.get(section, {}).get("options", {})
            keys |= {f"{section}.options.{key}" for key in options}
    named = {name for names in RANGES.values() for name in names}
    assert {name for name in named if not name.startswith("backbone.")} <= keys


def test_every_number_of_a_loss_has_a_range_that_holds_its_own():
    ranges = {name: r for r, names in OF_LOSSES.items() for name in names}
    for task in TASKS.values():
        for options in default_options(task.losses).values():
            for name, value in options.items():
                if not isinstance(value, bool | str):
                    assert ranges[name].lowest <= value <= ranges[name].highest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__image_dropout": 1.0}, r"image_dropout is .* below 1, got 1\.0\."),
        ({"training__word_dropout": -0.5}, r"word_dropout is a share, 0 to 1, got -0"),
        ({"training__batch_size": 0}, r"training\.batch_size is 1 or more, got 0\."),
        ({"training__tensor_parallel": 0}, r"tensor_parallel is 1 or more, got 0\."),
        ({"model__hidden_features": -1}, r"hidden_features is 0 or more, got -1\."),
        ({"optimizer__block_learning_rate": -0.1}, r"block_learning_rate is 0 or more"),
        (
            {"optimizer__learning_rate": math.nan},
            r"learning_rate is 0 or more, got nan",
        ),
        ({"optimizer__weight_decay": math.inf}, r"weight_decay is 0 or more, got inf"),
        ({"data__options": {"stored_size": -5}}, r"stored_size is 0 or more, got -5\."),
        (
            {"loss__options": {"listwise": {"temperature": 0.0}}},
            r"loss\.options\.listwise\.temperature is above 0, got 0\.0\.",
        ),
        (
            {"loss__options": {"expected_ap": {"weight": -1.0}}},
            r"loss\.options\.expected_ap\.weight is 0 or more, got -1\.0\.",
        ),
    ],
)
def test_others_are_refused_before_the_data_is_read(changes, message):
    with pytest.raises(ValueError, match=rf"^config\..*{message}"):
        build.experiment(config_of("flickr", **changes))


def test_what_validation_searches_is_looked_at_before_the_data_is_read():
    config = config_of("flickr", training__validation_search="unsen")
    message = "config.training.validation_search 'unsen'. Did you mean 'unseen'"
    with pytest.raises(ValueError, match=message):
        build.experiment(config)


@pytest.mark.parametrize("number", [-1, 0, 8])
def test_a_batch_has_a_group_of_each_size_up_to_its_own(number):
    config = config_of("captioned_shapes", loss__num_negatives=number)
    config.training.batch_size = 8
    message = f"config.loss.num_negatives={number}: expected 1 to 7, .* batch of 8 "
    with pytest.raises(ValueError, match=message):
        pair_loss(config, None, None, None)


def test_a_batch_that_the_training_pairs_do_not_fill_is_refused(tmp_path):
    run = types.SimpleNamespace(
        collection=None,
        split=types.SimpleNamespace(train=range(7)),
        tensor_parallel=1,
        batch_size=8,
    )
    with pytest.raises(ValueError, match="training.batch_size=8: there are 7 pairs"):
        fit_run(run, tmp_path)


@pytest.mark.parametrize("widths", [(), (512,), (512, 0)])
def test_the_text_has_two_layers(widths):
    with pytest.raises(ValueError, match="text_widths are the text's two layers"):
        build.model(config_of("flickr", model__text_widths=widths), None)
