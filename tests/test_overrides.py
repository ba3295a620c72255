import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from ml_collections import ConfigDict, config_dict
from ml_collections.config_flags import config_flags

from modal_aware_jax.overrides import explain_override, parse_flags

# ml_collections loads config files by a method that Python 3.11 warns about
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

APP = """
from absl import app
from ml_collections import config_flags
from modal_aware_jax.overrides import parse_flags

config_flags.DEFINE_config_file("config")
app.run(lambda argv: print("ran"), flags_parser=parse_flags)
"""

CONFIG = """
from ml_collections import ConfigDict

def get_config():
    model = ConfigDict({"num_bits": 64, "gate": True, "layers": (1, 2)})
    return ConfigDict({"steps": 100, "rate": 0.1, "model": model, "name": "a"}).lock()
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("app") / "config.py"
    path.write_text(CONFIG)
    return str(path)


def parse(*arguments):
    argv = ["app.py", *arguments]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    flags.DEFINE_string("workdir", None, "where it goes", flag_values=values)
    return parse_flags(argv, values), values


def test_the_command_line_ends_in_one_line_with_code_2(config):
    root = Path(__file__).parents[1]
    script = Path(config).with_name("app.py")
    script.write_text(APP)
    done = subprocess.run(
        [sys.executable, script, f"--config={config}", "--config.model.num_bit=3"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "unknown config key model.num_bit; did you mean model.num_bits?\n"
    )


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--config.steps=abc", "config key steps takes an int such as 100, not 'abc'"),
        ("--config.modl.num_bits=3", "unknown config key modl.num_bits; did you mean "),
        ("--config.model=3", "flag --config.model=3: Failed to parse '3' as a Config"),
        ("--wrkdir=x", "unknown flag --wrkdir; did you mean --workdir?"),
        ("--zzz=x", "unknown flag --zzz; see --help"),
        ("--config=missing.py", "--config: cannot find the config file missing.py"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(config, capsys, flag, message):
    with pytest.raises(SystemExit) as left:
        parse(f"--config={config}", flag)
    stderr = capsys.readouterr().err
    assert left.value.code == 2
    assert stderr.startswith(message) and stderr.count("\n") == 1


def test_what_is_right_goes_through(config):
    flag = ["--config.model.num_bits=32", "--config.model.layers=(3,)", "rest"]
    rest, values = parse(f"--config={config}", *flag)
    assert rest == ["app.py", "rest"]
    assert values.config.model.num_bits == 32 and values.config.model.layers == (3,)
    assert parse()[1].config is None


def test_a_config_file_with_a_mistake_shows_its_own_traceback(config, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config():\n    return {}['a']\n")
    with pytest.raises(KeyError, match="a"):
        parse(f"--config={broken}")


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("model.num_bits", "32", None),
        ("model.layers", "(1, 2)", None),
        ("model.layers[0]", "5", None),
        ("model.gate", "false", None),
        ("rate", "1e-3", None),
        ("rate", "fast", "config key rate takes a float such as 0.1, not 'fast'"),
        ("steps", "1.5", "config key steps takes an int such as 100, not '1.5'"),
        (
            "model.gate",
            "maybe",
            "config key model.gate takes true or false such as True",
        ),
        ("num_bits", "3", "unknown config key num_bits; did you mean model.num_bits?"),
        ("model.laiers[0]", "3", "unknown config key model.laiers[0]; did you mean"),
        ("xyz", "3", "unknown config key xyz; the keys are limit, model, rate, steps"),
        ("limit", "3", None),
    ],
)
def test_explanations(key, value, message):
    config = ConfigDict(
        {
            "steps": 100,
            "rate": 0.1,
            "model": {"num_bits": 64, "gate": True, "layers": (1, 2)},
            "limit": config_dict.placeholder(int),
        }
    )
    explained = explain_override(config, key, value)
    assert (explained or "").startswith(message or "")
    assert (explained is None) == (message is None)


def test_a_refusal_of_the_config_file_itself_is_told_alone(tmp_path, capsys):
    path = tmp_path / "choosy.py"
    path.write_text(
        "def get_config(arg):\n    raise ValueError(f'variant is quick, not {arg}.')\n"
    )
    with pytest.raises(SystemExit) as stop:
        parse(f"--config={path}:quik")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "variant is quick, not quik.\n"


@pytest.mark.parametrize(
    "argument, message",
    [
        (
            "posts.py:method=dpsh",
            "The task classification cannot use the method 'dpsh'",
        ),
        ("folder.py:task=classification,method=dpsh", "The task classification cannot"),
        ("folder.py:task=matching", "config argument task=matching is unknown"),
    ],
)
def test_a_refusal_of_the_package_is_told_alone(capsys, argument, message):
    configs = Path(__file__).parents[1] / "configs"
    with pytest.raises(SystemExit) as stop:
        parse(f"--config={configs / argument}")
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert told.startswith(message) and told.count("\n") == 1
    assert "sgmft" not in told or "posts" in argument
