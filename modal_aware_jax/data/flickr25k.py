"""MIR-Flickr 25k from its official archives, zipped or extracted.

A directory as users have it:

- images and tags: `mirflickr25k.zip`, or `mirflickr25k.part1.zip`,
  `mirflickr25k.part2.zip`, ..., or the extracted folder `mirflickr/`, with
  `mirflickr/imN.jpg` and `mirflickr/meta/tags/tagsN.txt` (one tag a line);
- annotations: `mirflickr25k_annotations_v080.zip`, or its files (`animals.txt`,
  `baby.txt`, `baby_r1.txt`, ...: one image number a line) in a folder of that name or
  in the directory itself;
- optionally `tag_vocabulary_*.txt`, one word a line.

M. J. Huiskes, M. S. Lew: The MIR Flickr retrieval evaluation, MIR 2008.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence

from modal_aware_jax.data import archive, text
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.prepare import Pair, Scan, load_or_prepare, source_directory
from modal_aware_jax.data.problems import DataProblems, Problem

NAME = "flickr25k"
IMAGES = "mirflickr25k"
ANNOTATIONS = "mirflickr25k_annotations_v080"

POTENTIAL_LABELS = tuple(
    "animals baby bird car clouds dog female flower food indoor lake male night people "
    "plant_life portrait river sea sky structures sunset transport tree water".split()
)
RELEVANT_LABELS = tuple(
    f"{name}_r1"
    for name in (
        "baby bird car clouds dog female flower male night people portrait river sea "
        "tree"
    ).split()
)


def load(
    directory: str | os.PathLike,
    *,
    num_labels: int = 24,
    vocabulary: str | os.PathLike | Sequence[str] | None = None,
    min_tag_count: int = 20,
    keep_all: bool = False,
    keep_without_text: bool = False,
    keep_without_image: bool = False,
    stored_size: int | None = 256,
    on_problem: str = "stop",
    prepared_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> Collection:
    """Reads MIR-Flickr 25k, prepared on the first call.

    Args:
      directory: where the archives or the extracted folders are.
      num_labels: 24, the labels an image may be given ("potential"), or 38, these and
        the `_r1` labels of what is "relevant" in it.
      vocabulary: the tags, or a file with one a line. None takes the file
        `tag_vocabulary_*.txt` of the directory, or, where there is none, the tags
        used at least `min_tag_count` times.
      min_tag_count: see `vocabulary`.
      keep_all: also keep the images without a tag of the vocabulary.
      keep_without_text: keep pairs without a known word, and let the network learn what
        stands in for their text.
      keep_without_image: keep pairs whose image is not there, in the same way.
      stored_size: images are reduced to this shorter side; None keeps all sizes.
      on_problem: 'stop' raises DataProblems after everything was looked at; 'skip'
        leaves out what is wrong and says what.
      prepared_dir: where preparations are kept; None: the user's cache directory.
      progress: whether to show a progress bar and the counts.

    Returns:
      The pairs in the order of the image numbers; ids are `im1`, `im2`, ...
    """
    if num_labels not in (24, 38):
        raise ValueError(f"flickr25k.load: num_labels is 24 or 38, got {num_labels}.")
    directory = source_directory(NAME, directory)
    image_inputs, annotation_inputs = _find_inputs(directory)
    words = _given_vocabulary(directory, vocabulary)
    keep_all = keep_all or keep_without_text
    label_names = POTENTIAL_LABELS + (RELEVANT_LABELS if num_labels == 38 else ())

    def scan():
        return _scan(
            _open(image_inputs, keep=_is_image_or_tags),
            _open(annotation_inputs, keep=lambda name: name.endswith(".txt")),
            words=words,
            min_tag_count=min_tag_count,
            keep_all=keep_all,
            label_names=label_names,
        )

    return load_or_prepare(
        NAME,
        scan,
        inputs=[*image_inputs, *annotation_inputs],
        options=dict(
            num_labels=num_labels,
            vocabulary=words,
            min_tag_count=None if words else min_tag_count,
            keep_all=keep_all,
        ),
        stored_size=stored_size,
        keep_without_image=keep_without_image,
        on_problem=on_problem,
        prepared_dir=prepared_dir,
        progress=progress,
    )


def _find_inputs(directory):
    """The zips, folders or files of images and of annotations."""
    problems = []
    images = archive.find_zips(directory, IMAGES)
    for part in archive.missing_parts(images, IMAGES):
        message = "this part is missing, though a later one is there"
        problems.append(Problem("missing archive", str(directory / part), message))
    if not images:
        # An archive goes first: nobody sees whether a folder was extracted completely.
        folders = (directory / "mirflickr", directory / IMAGES / "mirflickr")
        images = [folder for folder in folders if folder.is_dir()][:1]
    if not images:
        message = (
            f"no images: neither {IMAGES}.zip, nor {IMAGES}.part1.zip, "
            f"{IMAGES}.part2.zip, nor a folder mirflickr/ is here (found: "
            f"{_listing(directory)})"
        )
        problems.append(Problem("missing archive", str(directory), message))
    annotations = archive.find_zips(directory, ANNOTATIONS)
    if not annotations:
        folders = (directory / ANNOTATIONS, directory / "annotations", directory)
        annotations = [f for f in folders if (f / "animals.txt").is_file()][:1]
        if annotations == [directory]:
            annotations = [
                path
                for name in POTENTIAL_LABELS + RELEVANT_LABELS
                if (path := directory / f"{name}.txt").is_file()
            ]
    if not annotations:
        message = (
            f"no annotations: neither {ANNOTATIONS}.zip nor a folder {ANNOTATIONS}/ "
            f"with animals.txt is here (found: {_listing(directory)})"
        )
        problems.append(Problem("missing archive", str(directory), message))
    if problems:
        raise DataProblems(NAME, problems, skippable=False)
    return images, annotations


def _listing(directory):
    names = sorted(path.name for path in directory.iterdir())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "nothing") + more


def _given_vocabulary(directory, vocabulary):
    """The vocabulary that is given or lies in the directory, or None."""
    if vocabulary is None:
        files = sorted(directory.glob("tag_vocabulary_*.txt"))
        if len(files) > 1:
            raise ValueError(
                f"flickr25k.load: {directory} has {len(files)} vocabularies "
                f"({', '.join(file.name for file in files)}). Say which one to take "
                "with --config.data.options.vocabulary=FILE."
            )
        if not files:
            return None
        vocabulary = files[0]
    return text.given_vocabulary(vocabulary, "flickr25k.load")


def _open(inputs, keep):
    """The files that matter, by base name; raises where an archive is unreadable."""
    files = archive.Files()
    for path in inputs:
        if path.is_dir():
            files.add_folder(path, prefix=f"{path.name}/")
        elif path.suffix == ".zip":
            files.add_zip(path)
        else:
            files.add_file(path)
    problems = list(files.problems)
    by_name = {}
    for name in files.names:
        base = name.rsplit("/", 1)[-1]
        if "__MACOSX/" in name or not keep(name):
            continue
        if base in by_name:
            files.repeated.append(name)
        by_name.setdefault(base, name)
    for name in files.repeated:
        if keep(name):
            problems.append(
                Problem("duplicate id", files.where(name), "lies here twice")
            )
    if files.problems:
        raise DataProblems(NAME, files.problems, skippable=False)
    return files, by_name, problems


def _is_image_or_tags(name):
    return bool(
        re.search(r"(^|/)im\d+\.jpg$", name)
        or re.search(r"(^|/)tags/tags\d+\.txt$", name)
    )


def _scan(images, annotations, *, words, min_tag_count, keep_all, label_names):
    files, by_name, problems = images
    counts = Counter()
    numbers = sorted(
        {int(digits) for name in by_name for digits in re.findall(r"\d+", name)}
    )
    labels, label_problems = _read_labels(*annotations, label_names, numbers, counts)
    problems = problems + label_problems
    tags = {}
    for number in numbers:
        found = _read_tags(files, by_name, number, problems, counts)
        if found is not None:
            tags[number] = found
    if words is None:
        words = text.tag_vocabulary(
            tags.values(),
            min_count=min_tag_count,
            option="--config.data.options.min_tag_count",
        )
    position = {word: i for i, word in enumerate(words)}
    pairs = []
    for number, found in tags.items():
        bag = text.word_indices(found, position)
        if not len(bag) and not keep_all:
            empty = "tag file is empty" if not found else "no tag of the vocabulary"
            counts[f"pairs left out: {empty}"] += 1
            continue
        pairs.append(_pair(files, by_name, number, found, bag, labels))
    return Scan(pairs, words, label_names, problems, counts)


def _pair(files, by_name, number, tags, bag, labels):
    image = by_name.get(f"im{number}.jpg")
    if image is None:
        where = f"mirflickr/im{number}.jpg (its tags are there)"
    else:
        where = files.where(image)

    def read_image():
        if image is None:
            raise FileNotFoundError
        return files.read(image)

    return Pair(
        id=f"im{number}",
        read_image=read_image,
        where=where,
        caption=", ".join(tags),
        text=bag,
        labels=labels.get(number, ()),
    )


def _read_tags(files, by_name, number, problems, counts):
    """The tags of an image, or None where there is no readable tag file."""
    name = by_name.get(f"tags{number}.txt")
    if name is None:
        where = f"mirflickr/meta/tags/tags{number}.txt"
        problems.append(
            Problem("missing tags", where, "no such file, but its image is there")
        )
        counts["pairs left out: missing tags"] += 1
        return None
    try:
        content = files.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problems.append(Problem("not UTF-8", files.where(name), str(error)))
        counts["pairs left out: tags are not UTF-8"] += 1
        return None
    except Exception as error:  # zipfile raises nearly anything
        message = f"cannot be read: {error}"
        problems.append(Problem("unreadable file", files.where(name), message))
        counts["pairs left out: unreadable tags"] += 1
        return None
    lines = (line.strip() for line in content.splitlines())
    return list(dict.fromkeys(line for line in lines if line))


def _read_labels(files, by_name, problems, label_names, numbers, counts):
    """Labels of each image number, and what is wrong with the annotations."""
    labels, problems = {}, list(problems)
    known = set(POTENTIAL_LABELS + RELEVANT_LABELS)
    present = set(numbers)
    for base in sorted(by_name):
        stem = base.removesuffix(".txt")
        if stem not in known and not stem.lower().startswith("readme"):
            message = f"{stem!r} is none of the 38 labels of MIR-Flickr 25k"
            where = files.where(by_name[base])
            problems.append(Problem("unknown label", where, message))
    for column, label in enumerate(label_names):
        name = by_name.get(f"{label}.txt")
        if name is None:
            message = f"no file {label}.txt among {len(by_name)} annotation files"
            problems.append(Problem("missing label file", ANNOTATIONS, message))
            continue
        try:
            lines = files.read(name).decode("ascii", "replace").splitlines()
        except Exception as error:  # zipfile raises nearly anything
            message = f"cannot be read: {error}"
            problems.append(Problem("unreadable file", files.where(name), message))
            continue
        for line_number, line in enumerate(lines, start=1):
            line = line.strip()
            if line.isdigit() and int(line) in present:
                labels.setdefault(int(line), []).append(column)
            elif line.isdigit():
                counts["label entries of images that are not here"] += 1
            elif line:
                where = f"{files.where(name)} line {line_number}"
                message = f"{line[:40]!r} is not an image number"
                problems.append(Problem("malformed line", where, message))
    return {n: sorted(set(columns)) for n, columns in labels.items()}, problems
