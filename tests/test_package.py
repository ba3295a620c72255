"""The package as a whole: light imports, complete names, one direction of imports."""

import ast
import importlib
import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

import modal_aware_jax

PACKAGE = pathlib.Path(modal_aware_jax.__file__).parent
ROOT = pathlib.Path(__file__).parents[1]
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Design: the folders in the order of the data flow; imports point left.
FLOW = (
    "data",
    "backbones",
    "blocks",
    "fusion",
    "hashing",
    "models",
    "losses",
    "training",
    "retrieval",
    "classification",
    "report",
    "serve",
)
# Beside the flow: rules for XLA's CPU backend, which backbones alone read.
CPU = "cpu"
# What puts the parts together may import any of them.
ASSEMBLY = {
    "main",
    "overrides",
    "modes",
    "build",
    "experiment",
    "tasks",
    "linen",
    "cli",
    "compare",
    "encode_many",
    "figures",
    "robustness",
}
CONFIG_READERS = (
    *("main.py", "cli.py", "overrides.py", "modes/", "build.py", "compare/"),
    *("figures.py", "robustness.py"),
    *("experiment/", "tasks/", "training/loop.py", "training/run.py"),
)

# These compute with jax and numpy alone, so any framework can use them.
BARE = ("losses/", "retrieval/", "classification/", "hashing/codes.py")
BARE_IMPORTS = {"jax", "numpy", "modal_aware_jax"} | set(sys.stdlib_module_names)


def name_of(path):
    """training/loop.py for a source file."""
    return path.relative_to(PACKAGE).as_posix()


def part_of(module):
    """fusion for modal_aware_jax.fusion.gmu, "" for modal_aware_jax itself."""
    return (module.split(".") + [""])[1]


def imports_of(tree):
    """(module, whether at import time) for every import in a syntax tree."""
    lazy = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: name the module in full"
            # `from modal_aware_jax import losses` imports modal_aware_jax.losses.
            modules = [node.module]
            if node.module == "modal_aware_jax":
                modules = [f"modal_aware_jax.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            yield module, node not in lazy


def sources():
    """(name, syntax tree) of every file of the package."""
    return [(name_of(path), ast.parse(path.read_text("utf-8"))) for path in SOURCES]


@pytest.fixture(scope="module")
def imports():
    """(name, what `imports_of` tells) of every file of the package."""
    return [(name, list(imports_of(tree))) for name, tree in sources()]


def run_python(program):
    """The words a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_importing_the_package_needs_jax_flax_and_numpy_only():
    loaded = run_python("""
import sys
import jax, flax.nnx, numpy
already = set(sys.modules)
import modal_aware_jax, modal_aware_jax.linen
print(*sorted(set(sys.modules) - already))
""")
    # Flax imports optax and absl itself; nothing else may come along ...
    brought = {module.split(".")[0] for module in loaded}
    assert brought <= {"modal_aware_jax", "jax", "flax", "numpy"} | set(
        sys.stdlib_module_names
    )
    # ... and none of the files that were loaded may lean on what Flax happens to have.
    for module in loaded:
        if not module.startswith("modal_aware_jax"):
            continue
        path = pathlib.Path(importlib.util.find_spec(module).origin)
        for needed, at_import_time in imports_of(ast.parse(path.read_text("utf-8"))):
            if at_import_time:
                assert needed.split(".")[0] in BARE_IMPORTS | {"flax"}, (
                    f"{module} imports {needed}"
                )


def test_importing_the_package_runs_nothing_on_a_device():
    assert run_python("""
import modal_aware_jax
from jax._src import xla_bridge
print(len(xla_bridge._backends))
""") == ["0"]


@pytest.mark.parametrize(
    "module",
    ["modal_aware_jax"]
    + [f"modal_aware_jax.{part}" for part in (*FLOW, CPU) if (PACKAGE / part).is_dir()],
)
def test_every_public_name_exists_and_has_a_docstring(module):
    module = importlib.import_module(module)
    assert module.__doc__, f"{module.__name__} has no docstring"
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if callable(value):
            assert value.__doc__, f"{module.__name__}.{name} has no docstring"
            first = value.__doc__.strip().splitlines()[0]
            assert not first.startswith(f"{name}("), (
                f"{module.__name__}.{name} has only a generated docstring"
            )


def test_the_names_of_the_design_are_public():
    for name in (
        *("ModalAwareBlock", "KernelNetwork", "ChannelAttention"),
        *("GatedMultimodalUnit", "CompactBilinear", "ResNet18", "HashHead"),
        "MultimodalHashing",
    ):
        assert name in modal_aware_jax.__all__


def test_imports_point_left_along_the_data_flow(imports):
    wrong = []
    for name, imported in imports:
        here = name.split("/")[0].removesuffix(".py")
        if here in ("__init__", CPU) or here in ASSEMBLY:
            continue
        assert here in FLOW, f"{name} is in no folder of the data flow"
        reachable = (*FLOW[: FLOW.index(here) + 1], CPU)  # who may: the next test
        wrong += [
            f"{name} imports {module}"
            for module, _ in imported
            if module.startswith("modal_aware_jax") and part_of(module) not in reachable
        ]
    assert not wrong


def test_cpu_rules_are_read_by_backbones_and_read_jax_and_flax_only(imports):
    wrong = []
    for name, imported in imports:
        here = name.split("/")[0]
        for module, _ in imported:
            package = module.split(".")[0]
            if package == "modal_aware_jax":
                reads_rules = part_of(module) == CPU
                allowed = reads_rules == (here == CPU) or (here == "backbones")
            else:
                allowed = here != CPU or package in BARE_IMPORTS | {"flax"}
            if not allowed:
                wrong.append(f"{name} imports {module}")
    assert not wrong


def test_losses_codes_and_retrieval_import_jax_and_numpy_only(imports):
    wrong = [
        f"{name} imports {module}"
        for name, imported in imports
        if name.startswith(BARE)
        for module, at_import_time in imported
        if at_import_time and module.split(".")[0] not in BARE_IMPORTS
    ]
    assert not wrong


def test_only_the_readers_of_configs_see_one():
    wrong = []
    for name, tree in sources():
        if name.startswith(CONFIG_READERS):
            continue
        wrong += [
            f"{name} imports {module}"
            for module, _ in imports_of(tree)
            if module.startswith("ml_collections")
        ]
        wrong += [
            f"{name} line {node.lineno} names a config"
            for node in ast.walk(tree)
            if {getattr(node, "id", None), getattr(node, "arg", None)}
            & {"config", "cfg"}
        ]
    assert not wrong


def test_files_name_no_index_host_and_no_place_on_one_machine():
    """Requirements install from whatever index is set up; paths are relative."""
    hosts = re.compile(
        r"pypi\.(org|python)|pythonhosted|"
        r"^\s*--?(i|f|index-url|extra-index-url|find-links|trusted-host)\b|file://",
        re.MULTILINE,
    )
    homes = re.compile(r"(?<![\w.~])/(root|home/\w+|Users/\w+)/")
    here = "" if len(ROOT.parts) < 3 else f"{ROOT}/"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path == pathlib.Path(__file__) or not path.is_file():
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        if path.suffix in (".txt", ".toml"):
            assert not hosts.search(text), f"{name} names a package index"
        assert not homes.search(text), f"{name} holds an absolute home path"
        assert not here or here not in text, f"{name} holds the path of a checkout"


def test_requirements_are_pinned_and_hashed():
    """Every line of requirements.txt is a comment, a pin or a hash of it."""
    text = (ROOT / "requirements.txt").read_text("utf-8")
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        assert re.match(r"[\w.-]+==[\w.]+ ", line), line[:80]
        assert "--hash=sha256:" in line, line[:80]
