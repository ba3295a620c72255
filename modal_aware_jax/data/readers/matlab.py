"""Rows of the MATLAB files that the field hands round, DCMH's first of all.

One file, `FLICKR-25K.mat` with `images`, `YAll` and `LAll`, or one for each,
`mirflickr25k-iall.mat`, `-yall.mat`, `-lall.mat`: images of 224 x 224 pixels, tags and
labels as tables of 0 and 1. Version 7.3 is HDF5 and is read through h5py, which sees
the axes in reverse; older versions through SciPy. The axis of the pairs is the one that
all tables share, whichever way they were saved.

Q.-Y. Jiang, W.-J. Li: Deep Cross-Modal Hashing, CVPR 2017.
"""

import contextlib
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from modal_aware_jax.data.readers.rows import Row, Table
from modal_aware_jax.data.readers.window import Window

NAMES = {
    "image": ("images", "iall", "image", "img", "imgs", "i"),
    "text": ("yall", "tall", "tags", "tag", "texts", "text", "y", "t"),
    "label": ("lall", "labels", "label", "l"),
}
BATCH = 16  # images read at a time
MAX_CELLS = 1 << 29  # of a table of tags or labels
MAX_PIXELS = 1 << 24  # of an image


class Variable(NamedTuple):
    """A table of a file: where it is, its name there, its shape; `read` gives it."""

    path: pathlib.Path
    name: str
    shape: tuple[int, ...]
    is_hdf5: bool
    kind: np.dtype

    def __str__(self):
        return f"{self.name} {list(self.shape)} in {self.path}"


def read_matlab(paths: Sequence[pathlib.Path]) -> Table:
    """The pairs of one MATLAB file, or of several that hold a table each.

    Cells: `image`; `text`, a list of `tag 1`, `tag 2`, ...; `label`, a list of class
    numbers from 0 on. The vocabulary and the label names of the options name them.
    """
    found = _variables(paths)
    images, tags = found.get("image"), found.get("text")
    if images is None or tags is None:
        missing = "images (images or IAll)" if images is None else "tags (YAll)"
        raise ValueError(
            f"{_all(paths)}: there is no table of {missing}; expected images, YAll and "
            "LAll, in one file or in one for each, all of them in the folder."
        )
    length = _length(list(found.values()))
    layout = _layout(images, length)
    ones = {
        column: _ones(found[column], length)
        for column in ("text", "label")
        if column in found
    }
    window = Window(lambda: _batches(images, layout))
    rows = []
    for n in range(length):
        cells: dict[str, Any] = {"image": EmbeddedInMatlab(window, n, f"im{n + 1}")}
        cells["text"] = [f"tag {i + 1}" for i in ones["text"][n]]
        if "label" in ones:
            cells["label"] = [str(i) for i in ones["label"][n]]
        rows.append(Row(f"{images.path} image {n + 1}", cells))
    class_names = {}
    if "label" in found:
        width = int(np.prod(found["label"].shape)) // length
        class_names["label"] = tuple(map(str, range(width)))
    columns = ("image", "text", *class_names)
    return Table(rows, [], columns, class_names)


class EmbeddedInMatlab(NamedTuple):
    """An image of the table of images, as a PNG file."""

    window: Window
    row: int
    name: str

    def read(self) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(_bytes(self.window[self.row])).save(
            buffer, "PNG", compress_level=1
        )
        return buffer.getvalue()


def _variables(paths):
    """The tables by column; raises where two files have the same."""
    found = {}
    for path in paths:
        for variable in _tables(path):
            kinds = [k for k, names in NAMES.items() if variable.name.lower() in names]
            for kind in kinds:
                if kind in found:
                    raise ValueError(
                        f"{variable} and {found[kind]}: two tables of one kind. Name "
                        "the files to read with --config.data.options.table=A,B."
                    )
                found[kind] = variable
    return found


def _tables(path) -> Iterator[Variable]:
    with open(path, "rb") as file:
        head = file.read(520)
    is_hdf5 = b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:520])
    with _explained(path, "h5py" if is_hdf5 else "scipy"):
        if is_hdf5:
            import h5py

            with h5py.File(path, "r") as file:
                for name in file:
                    link = file.get(name, getlink=True)
                    if not isinstance(link, h5py.HardLink):
                        continue  # a link may lead to any other file
                    item = file[name]
                    if not isinstance(item, h5py.Dataset) or item.shape is None:
                        continue  # a group, or a table that holds nothing
                    if item.external is None:
                        yield Variable(path, name, item.shape, True, item.dtype)
        else:
            import scipy.io

            for name, shape, kind in scipy.io.whosmat(path):
                if kind not in ("cell", "struct", "char", "object", "unknown"):
                    yield Variable(path, name, tuple(shape), False, np.dtype(object))


@contextlib.contextmanager
def _explained(path, library):
    """Names the file in whatever the library makes of it, and a missing library."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path}: MATLAB files are read through {library}, which is not installed: "
            "pip install 'modal-aware-jax[matlab]'."
        ) from error
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise _damaged(path, error) from error
    except Exception as error:  # both libraries raise nearly anything
        raise _damaged(path, error) from error


def _damaged(path, error):
    told = " ".join(str(error).split())[:200] or type(error).__name__
    return ValueError(
        f"{path}: cannot be read as a MATLAB file ({told}). Copy or download it again."
    )


def _read(variable) -> np.ndarray:
    """The whole table, its axes as h5py has them where it is HDF5."""
    if int(np.prod(variable.shape, dtype=float)) > MAX_CELLS:
        raise ValueError(f"{variable}: the table is too large to be one of 0 and 1.")
    with _explained(variable.path, "h5py" if variable.is_hdf5 else "scipy"):
        if variable.is_hdf5:
            import h5py

            with h5py.File(variable.path, "r") as file:
                return np.asarray(file[variable.name][()])
        import scipy.io
        import scipy.sparse

        found = scipy.io.loadmat(variable.path, variable_names=[variable.name])
        table = found[variable.name]
        return np.asarray(table.todense() if scipy.sparse.issparse(table) else table)


def _length(variables):
    """N: the size that an axis of every table has; of several the largest."""
    shared = set(variables[0].shape)
    for variable in variables[1:]:
        shared &= set(variable.shape)
    shared -= {0, 1}
    if not shared:
        raise ValueError(
            f"{'; '.join(map(str, variables))}: the tables share no number of pairs. "
            "Put together those of one collection."
        )
    return max(shared)


def _ones(variable, length):
    """The columns of each pair that hold a 1 -> list of int arrays."""
    table = _read(variable)
    axes = [axis for axis, size in enumerate(table.shape) if size == length]
    binary = table.dtype.kind in "biuf" and np.isin(table, (0, 1)).all()
    if table.ndim != 2 or not axes or not binary:
        raise ValueError(
            f"{variable}: expected a table of 0 and 1 with a row or column for each of "
            f"{length} pairs."
        )
    # Where both axes fit: MATLAB has a pair a row, which h5py shows as a column.
    axis = axes[0] if len(axes) == 1 else int(variable.is_hdf5)
    table = np.moveaxis(table, axis, 0)
    return [np.flatnonzero(row) for row in table]


def _layout(images, length):
    """Places of the axes (pair, height, width, colour) of the table of images."""
    shape = images.shape
    pair = [axis for axis, size in enumerate(shape) if size == length]
    colour = [axis for axis, size in enumerate(shape) if size == 3]
    if len(shape) != 4 or not pair or not set(colour) - {pair[0]}:
        raise ValueError(
            f"{images}: expected images [{length}, height, width, 3], in any order of "
            "the axes. Features of images cannot be read: give the images themselves."
        )
    # MATLAB's own order is height, width, colour, pair; Python's is pair first, and
    # h5py reverses either. A file that Python wrote has no reversed axes.
    if shape[0] == length:
        pair, colour = 0, (1 if shape[1] == 3 else 3)
    else:
        pair, colour = pair[-1], (2 if shape[2] == 3 else colour[0])
    if shape[colour] != 3:
        colour = next(axis for axis in range(4) if shape[axis] == 3 and axis != pair)
    sides = [axis for axis in range(4) if axis not in (pair, colour)]
    if shape[sides[0]] * shape[sides[1]] > MAX_PIXELS:
        raise ValueError(f"{images}: images of so many pixels are not read.")
    if images.is_hdf5 and _from_matlab(images):
        sides.reverse()
    return (pair, *sides, colour)


def _from_matlab(images):
    """Whether MATLAB wrote it, which h5py shows with all axes in reverse."""
    import h5py

    with _explained(images.path, "h5py"), h5py.File(images.path, "r") as file:
        return "MATLAB_class" in file[images.name].attrs


def _batches(images, layout):
    """Blocks of images [n, height, width, 3] with the position of the first."""
    length = images.shape[layout[0]]
    if not images.is_hdf5:  # SciPy reads whole variables only
        table = np.transpose(_read_images(images), layout)
        for first in range(0, length, BATCH):
            yield first, table[first : first + BATCH]
        return
    import h5py

    with h5py.File(images.path, "r") as file:
        item = file[images.name]
        for first in range(0, length, BATCH):
            place = [slice(None)] * 4
            place[layout[0]] = slice(first, min(first + BATCH, length))
            yield first, np.transpose(item[tuple(place)], layout)


def _read_images(images):
    import scipy.io

    with _explained(images.path, "scipy"):
        return scipy.io.loadmat(images.path, variable_names=[images.name])[images.name]


def _bytes(image):
    """An image of numbers 0 to 255 of any type -> uint8; else a ValueError."""
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    if image.dtype.kind not in "buif":
        raise ValueError(f"its numbers are no colours but of type {image.dtype}")
    values = np.asarray(image, np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
        raise ValueError(
            "its numbers are not colours from 0 to 255: they may be features, or "
            "images less their mean"
        )
    if values.max() <= 1 and (values % 1).any():
        values = values * 255
    return np.ascontiguousarray(np.round(values).astype(np.uint8))


def _all(paths):
    return ", ".join(map(str, paths))
