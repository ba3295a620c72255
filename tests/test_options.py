"""What a message tells the user to type is accepted as it stands there."""

import ast
import inspect
import pathlib
import re
import runpy
import shlex

import pytest
from absl import flags
from ml_collections.config_flags import config_flags

import modal_aware_jax
from modal_aware_jax.build import SOURCES, reader_options
from modal_aware_jax.data.problems import ADVICE

PACKAGE = pathlib.Path(modal_aware_jax.__file__).parent
CONFIGS = {path.stem: path for path in (PACKAGE.parent / "configs").glob("*.py")}
# Where a config is not named after its source.
SOURCE_OF = {
    "flickr": "flickr25k",
    "flickr8k": "captions/flickr8k",
    "flickr30k": "captions/flickr30k",
    "coco": "captions/karpathy",
    "cross_modal": "flickr25k",
    "flickr_matching": "flickr25k",
    "posts": "shapes",
}
# ml_collections loads a config file by a method that Python gives up.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
# Files of the package's data that the source `folder` alone reads with.
OF_A_FOLDER = ("columns.py", "folder_items.py", "image_places.py", "labels.py") + (
    *("given_split.py", "neighbours.py", "new_posts.py"),  # others have labels
)
HOLE = "\N{REPLACEMENT CHARACTER}"  # what an f-string fills in


def messages(path):
    """The texts of a file that are no docstrings, as written."""
    nodes, skip = list(ast.walk(ast.parse(path.read_text()))), set()
    for node in nodes:
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            skip.add(id(body[0].value))
    inside = {
        id(part)
        for node in nodes
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                part.value if isinstance(part, ast.Constant) else HOLE
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in skip | inside:
                yield node.value


EMBEDDED = ("shapes", "captioned_shapes")
OF_MATCHING = ("flickr8k", "flickr30k", "coco", "captioned_shapes", "flickr_matching")
OF_OTHER_TASKS = ("posts", *OF_MATCHING)
# A head of labels beside the codes is of hashing.
WITHOUT_LABEL_HEAD = (*OF_OTHER_TASKS, "cross_modal")
MESSAGES = [(p, text) for p in sorted(PACKAGE.rglob("*.py")) for text in messages(p)]


def configs_of(path, text):
    """The configs whose users may read a message: those that read the file's source."""
    if path.name == "problems.py":  # the kinds that a source's file names
        kinds = [kind for kind, advice in ADVICE.items() if advice == text]
        return [
            config
            for config in CONFIGS
            if not kinds or any(f'"{kind}"' in source_text(config) for kind in kinds)
        ]
    if path.parent.name == "data" and path.stem in SOURCES:
        return [c for c in CONFIGS if SOURCE_OF.get(c, c) == path.stem]
    if path.parent.name == "readers" or path.name in OF_A_FOLDER:
        return ["folder"]
    if path.parts[-2:] == ("tasks", "matching.py"):
        return list(OF_MATCHING)
    return list(CONFIGS)


def source_text(config):
    return (PACKAGE / "data" / f"{SOURCE_OF.get(config, config)}.py").read_text()


CONFIG_FLAGS = sorted(
    {
        (config, flag)
        for path, text in MESSAGES
        for flag in re.findall(r"--config\.[\w.]*\w(?:=[^\s,;:)]*)?", text)
        for config in configs_of(path, text)
        # A source that takes nothing from the disk has neither folder nor options.
        if not (SOURCE_OF.get(config, config) in EMBEDDED and ".data." in flag)
        # Posts are classified, sentences matched: they have no codes.
        if not (config in OF_OTHER_TASKS and "bits" in flag)
        if not (
            config in WITHOUT_LABEL_HEAD
            and re.search("label_weight|head_features", flag)
        )
    }
)


def test_there_are_such_messages():
    named = {flag.split("=")[0] for _, flag in CONFIG_FLAGS}
    assert "--config.data.options.table" in named and len(named) > 12


@pytest.mark.parametrize("config", sorted(CONFIGS))
def test_every_flag_in_a_message_is_accepted(config):
    for flag in [flag for name, flag in CONFIG_FLAGS if name == config]:
        key, _, value = flag.removeprefix("--config.").partition("=")
        value = "".join(shlex.split(value.rstrip(".").rstrip("`")))
        kind = type_of(_parsed(config, []), key)
        if HOLE in value or not value or value.isupper():  # the user's own
            value = {int: "3", float: "0.5", bool: "true"}.get(kind, "photos.csv")
        _parsed(config, [f"--config.{key}={value}"])


def type_of(config, key):
    *sections, last = key.split(".")
    for section in sections:
        config = config[section]
    return config.get_type(last)


def _parsed(config, arguments):
    argv = ["program", f"--config={CONFIGS[config]}", *arguments]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    return values.config


def test_an_option_is_named_as_it_is_typed():
    """No message says `table=FILE`, which no command line takes."""
    options = {
        name
        for load in SOURCES.values()
        for name, value in inspect.signature(load).parameters.items()
        if value.kind is value.KEYWORD_ONLY
    }
    bare = re.compile(rf"(?<![\w.])(?<!--)(?:{'|'.join(options)})=")
    found = [(path.name, text) for path, text in MESSAGES if bare.search(text)]
    assert not found


def test_every_flag_of_a_program_is_defined():
    defined = {"config"}
    for path in PACKAGE.rglob("*.py"):
        defined |= set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', path.read_text()))
    # Other programs:
    elsewhere = ("pip", "git", "zip", "ray start", "truncate")
    for path, text in MESSAGES:
        if text.lstrip().startswith(":root"):
            continue  # a style sheet has its own
        for name in re.findall(r"--([a-z]\w*)", text):
            foreign = any(
                program in text or path.name == "origin.py" for program in elsewhere
            )
            assert name in defined | {"help"} or foreign, (path, text)


def test_a_config_has_a_place_for_every_option_of_its_reader():
    for name, path in CONFIGS.items():
        config = runpy.run_path(str(path))["get_config"]()
        load = SOURCES[config.data.source]
        keywords = inspect.signature(load).parameters.values()
        names = {x.name for x in keywords if x.kind is x.KEYWORD_ONLY}
        assert set(config.data.options) == names, name


def test_a_place_takes_the_type_of_its_option_and_holds_nothing():
    options = reader_options("folder", on_problem="skip")
    kinds = {name: type(options[name]).__name__ for name in ("table", "on_problem")}
    assert kinds == {"table": "FieldReference", "on_problem": "str"}
    parsed = _parsed(
        "folder",
        [
            "--config.data.options.min_word_count=3",
            "--config.data.options.allow_empty_text=true",
            "--config.data.options.label_names=cat, dog",
        ],
    ).data.options
    assert (parsed.min_word_count, parsed.allow_empty_text) == (3, True)
    assert parsed.label_names == "cat, dog" and parsed.max_words is None
