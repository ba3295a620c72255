"""Every config for every method, and one clear message for a mistyped argument."""

import pathlib
import runpy
import subprocess
import sys

import numpy as np
import pytest

from modal_aware_jax import build, cli
from modal_aware_jax.experiment.losses import LOSSES, Setting, loss_options
from modal_aware_jax.overrides import ArgumentError

CONFIGS = sorted((pathlib.Path(__file__).parent.parent / "configs").glob("*.py"))


OTHER_TASKS = (
    "posts",
    "flickr8k",
    "flickr30k",
    "coco",
    "captioned_shapes",
    "cross_modal",
    "flickr_matching",
)
OF_CODES = [path for path in CONFIGS if path.stem not in OTHER_TASKS]


@pytest.fixture(params=OF_CODES, ids=lambda path: path.stem)
def get_config(request):
    return runpy.run_path(str(request.param))["get_config"]


def test_every_method_has_its_config(get_config):
    for method, row in build.METHODS.items():
        config = get_config(f"method={method},bits=48,seed=3")
        assert config.model.method == method and config.loss.name == row.loss
        assert config.model.num_bits == 48 and config.seed == 3
        assert config.data.source in build.SOURCES
        assert config.backbone.name in build.BACKBONES
        assert loss_options(config.loss) == build.LOSSES[row.loss].options


def test_without_arguments_it_is_the_recommended_method(get_config):
    config = get_config()
    assert config.model.method == "modal_aware" and config.seed == 0
    assert config == get_config("")


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("metod=gmu", "config argument 'metod' is unknown; did you mean 'method'?"),
        ("method=gmuu", "config argument method=gmuu is unknown; did you mean 'gmu'?"),
        ("bits=many", "config argument bits takes a whole number such as .*'many'"),
        ("bits=-3", "config argument bits takes a whole number such as .*'-3'"),
        ("gmu", "config argument 'gmu' is no name=value; the arguments are .*method="),
        ("bits=16,bits=32", "config argument 'bits' is given twice"),
    ],
)
def test_a_mistyped_argument_is_named(get_config, arg, message):
    with pytest.raises(ArgumentError, match=message):
        get_config(arg)


@pytest.mark.parametrize("name", ["flickr", "nus_wide", "iapr_tc12"])
def test_the_variants_of_the_large_collections(name):
    path = next(path for path in CONFIGS if path.stem == name)
    get_config = runpy.run_path(str(path))["get_config"]
    for variant in ("full", "quick"):
        cached = get_config(f"variant={variant}").training.cached_maps
        assert cached == (variant == "quick")
    with pytest.raises(ArgumentError, match="did you mean 'quick'"):
        get_config("variant=quik")


@pytest.mark.parametrize("name", ["flickr8k", "flickr30k", "coco"])
def test_captioned_collections_differ_in_their_data_alone(name):
    path = next(path for path in CONFIGS if path.stem == name)
    get_config = runpy.run_path(str(path))["get_config"]
    for method, row in build.TASKS["matching"].methods.items():
        config = get_config(f"method={method},seed=3")
        assert config.model.method == method and config.loss.name == row.loss
        assert config.data.source in build.SOURCES and config.seed == 3
    base = runpy.run_path(str(path.with_stem("flickr8k")))["get_config"]()
    for section in ("backbone", "model", "loss", "optimizer", "training"):
        assert get_config()[section] == base[section]


def test_a_mistake_on_the_command_line_is_one_line():
    path = next(path for path in CONFIGS if path.stem == "shapes")
    done = subprocess.run(
        [sys.executable, "-m", "modal_aware_jax.main", f"--config={path}:metod=gmu"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "did you mean 'method'?" in done.stderr


def test_what_the_operating_system_refuses_is_one_line(monkeypatch, capsys):
    def run(args):
        open("/dev/null/report.md", "w")

    monkeypatch.setattr(cli.app, "run", lambda main, flags_parser: main(["compare"]))
    with pytest.raises(SystemExit) as left:
        cli.start(run)
    told = capsys.readouterr().err
    assert left.value.code == 5 and told.count("\n") == 1
    assert "Not a directory: '/dev/null/report.md'" in told and "the same" in told


def test_options_stand_under_the_name_of_their_loss():
    config = runpy.run_path(str(CONFIGS[-1]))["get_config"]("method=dpsh")
    config.loss.name = "contrastive"
    config.loss.options.contrastive.margin_per_root_bit = 3.0
    own = {"margin_per_root_bit": 3.0}
    assert loss_options(config.loss) == own
    assert build.settled(config)["loss"]["options"] == own
    config.loss.options.contrastive.margn = 3.0
    with pytest.raises(ValueError, match="has no margn; .* takes margin_per_root_bit"):
        loss_options(config.loss)
    config.loss.options = {"margin": 2.0}
    with pytest.raises(ValueError, match="such as config.loss.options.contrastive.mar"):
        loss_options(config.loss)
    config.loss.options = {}  # a config of one's own need not list them
    assert loss_options(config.loss) == {"margin_per_root_bit": 1.0}


def test_runs_from_before_mirrored_readings_are_known_again():
    config = runpy.run_path(str(CONFIGS[-1]))["get_config"]("")
    with config.unlocked():
        config.data.mirrored = False
    before = config.copy_and_resolve_references()
    with before.unlocked():
        del before.data.mirrored
    assert build.settled(config) == build.settled(before)
    config.data.mirrored = True
    assert build.settled(config)["data"]["mirrored"]


@pytest.mark.parametrize(("bits", "margin"), [(64, 2.0), (16, 1.0)])
def test_the_triplet_margin_follows_the_code_length(bits, margin):
    setting = Setting(bits, 2, 4, np.arange(4), num_steps=1, seed=0)
    loss = LOSSES["triplet_ranking"].make(setting, **LOSSES["triplet_ranking"].options)
    labels = np.float32([[1, 0], [1, 0], [0, 1]])
    # All codes agree: every triplet misses the margin by the whole of it.
    u = np.full((3, bits), 50, np.float32)
    value = loss(u, {"labels": labels, "index": np.arange(3)}, None)
    np.testing.assert_allclose(value, margin, rtol=1e-5)


@pytest.mark.parametrize("backbone", sorted(build.BACKBONES))
def test_one_flag_gives_an_own_collection_a_pretrained_backbone(backbone):
    folders = {path.stem: runpy.run_path(str(path))["get_config"] for path in CONFIGS}
    arg = f"backbone={backbone},variant=quick,bits=32"
    own, flickr = folders["folder"](arg), folders["flickr"](arg)
    assert own.backbone == flickr.backbone and own.backbone.weights
    assert own.training.cached_maps and own.data.source == "folder"
    assert own.model == flickr.model and own.optimizer == flickr.optimizer
    assert own.data.num_train is None and own.training.batch_size is None
    assert not folders["folder"]("").backbone.weights
    with pytest.raises(
        ValueError, match="name one, backbone=mobilenet_v2,variant=quic"
    ):
        folders["folder"]("variant=quick")


@pytest.mark.parametrize("name", ["flickr8k", "captioned_shapes"])
def test_the_configs_of_matching(name):
    path = next(path for path in CONFIGS if path.stem == name)
    get_config = runpy.run_path(str(path))["get_config"]
    task = build.TASKS["matching"]
    for method, row in task.methods.items():
        config = get_config(f"method={method},seed=2")
        assert config.model.method == method and config.loss.name == row.loss
        assert build.task_of(config) is task and config.seed == 2
    assert get_config().model.method == "towers"
    with pytest.raises(ArgumentError, match="did you mean 'vse'"):
        get_config("method=vsee")
