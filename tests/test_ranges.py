"""Numbers beyond their range are refused by name, before anything is read."""

import math
import pathlib
import runpy
import types

import pytest

from modal_aware_jax import build
from modal_aware_jax.experiment.ranges import OPTIONS, RANGES, check_ranges
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
    named = {name for names in RANGES.values() for name in names}
    assert {name for name in named if not name.startswith("backbone.")} <= keys


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__image_dropout": 1.0}, r"image_dropout is .* below 1, got 1\.0\."),
        ({"training__word_dropout": -0.5}, r"word_dropout is a share, 0 to 1, got -0"),
        ({"training__batch_size": 0}, r"training\.batch_size is 1 or more, got 0\."),
        ({"model__hidden_features": -1}, r"hidden_features is 0 or more, got -1\."),
        ({"optimizer__block_learning_rate": -0.1}, r"block_learning_rate is 0 or more"),
        (
            {"optimizer__learning_rate": math.nan},
            r"learning_rate is 0 or more, got nan",
        ),
    ],
)
def test_others_are_refused_before_the_data_is_read(changes, message):
    with pytest.raises(ValueError, match=rf"^config\..*{message}"):
        build.experiment(config_of("flickr", **changes))


@pytest.mark.parametrize(
    ("name", "loss", "option", "value", "words"),
    [
        ("flickr", "listwise", "temperature", 0.0, r"above 0, got 0\.0\."),
        ("flickr", "soft_ap", "share", 1.5, r"a share, 0 to 1, got 1\.5\."),
        ("flickr", "hashnet", "num_stages", 0, r"1 or more, got 0\."),
        ("flickr", "dsh", "margin_per_bit", -1.0, r"0 or more, got -1\.0\."),
        ("flickr8k", "max_hinge", "margin", math.nan, r"0 or more, got nan\."),
        ("posts", "softmax", "label_smoothing", -0.1, r"a share, 0 to 1, got -0\.1\."),
    ],
)
def test_so_are_options_of_losses(name, loss, option, value, words):
    config = config_of(name)
    config.loss.options[loss][option] = value
    with pytest.raises(
        ValueError, match=rf"^config\.loss\.options\.{loss}\.{option} is {words}"
    ):
        build.experiment(config)


def test_every_number_among_the_options_of_losses_has_a_range():
    numbers = {
        name
        for task in build.TASKS.values()
        for loss in task.losses.values()
        for name, value in loss.options.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    assert numbers == {name for names in OPTIONS.values() for name in names}


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
