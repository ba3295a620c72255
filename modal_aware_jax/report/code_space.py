"""The space of codes in the plane: one panel a method, coloured by label."""

import numpy as np

from modal_aware_jax.report.styles import colour_and_marker, label_text

NUM_LABELS = 6


def pca(points: np.ndarray) -> np.ndarray:
    """The two directions of largest variance: [N, K] to [N, 2].

    Signs are set so that each direction's largest weight is positive.
    """
    centred = np.asarray(points, float) - np.mean(points, axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    first = directions[:2]
    largest = np.take_along_axis(first, abs(first).argmax(1)[:, None], axis=1)
    return centred @ (first * np.sign(largest)).T


def tsne(points: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton, JMLR 2008) by scikit-learn: [N, K] to [N, 2].

    Raises:
      ValueError: scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ValueError(
            "t-SNE needs scikit-learn: pip install scikit-learn, or take pca."
        ) from error
    perplexity = min(30.0, (len(points) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        np.asarray(points, np.float32)
    )


PROJECTIONS = {"pca": pca, "tsne": tsne}


def one_label_each(labels: np.ndarray, *, count: int = NUM_LABELS):
    """Rows with exactly one of the most frequent labels, to be coloured by it.

    Labels whose pairs nearly all have another of them are passed over: the labels are
    taken greedily, each the one that gives the most rows with exactly one label.

    Args:
      labels: 0/1 [N, L].
      count: how many labels.

    Returns:
      rows [n], the label of each [n], and the labels taken, most frequent first.

    >>> labels = np.array([[1, 0], [1, 1], [0, 1], [1, 0], [0, 1]])
    >>> rows, label, taken = one_label_each(labels)
    >>> rows.tolist(), label.tolist(), taken
    ([0, 2, 3, 4], [0, 1, 0, 1], [0, 1])
    """
    labels = np.asarray(labels) > 0
    taken = []
    while len(taken) < min(count, labels.shape[1]):
        rest = [i for i in range(labels.shape[1]) if i not in taken]
        gain = [(labels[:, [*taken, i]].sum(1) == 1).sum() for i in rest]
        if taken and max(gain) <= (labels[:, taken].sum(1) == 1).sum():
            break
        taken.append(rest[int(np.argmax(gain))])
    rows = np.flatnonzero(labels[:, taken].sum(1) == 1)
    label = np.array(taken)[labels[rows][:, taken].argmax(1)]
    taken.sort(key=lambda i: -(label == i).sum())
    return rows, label, taken


def balanced(label: np.ndarray, count: int) -> np.ndarray:
    """Positions of `count` points at most, the same number of each label if it can be.

    >>> balanced(np.array([7, 7, 7, 7, 7, 2]), 4).tolist()
    [0, 4, 5]
    """
    kinds = np.unique(label)
    chosen = []
    for kind in kinds:
        own = np.flatnonzero(label == kind)
        some = np.linspace(0, len(own) - 1, min(len(own), count // len(kinds)))
        chosen.append(own[some.astype(int)])
    return np.sort(np.concatenate(chosen))


def draw_code_space(
    spaces: dict[str, np.ndarray],
    labels: np.ndarray,
    names: list[str],
    path,
    *,
    title: str,
) -> None:
    """Draws points of the plane, one panel a method, in the colours of their labels.

    Args:
        spaces: [n, 2] by method, the same pairs in each.
        labels: the label of each point [n].
        names: by label.
        path: of the PNG.
        title: what the points are.
    """
    from matplotlib.figure import Figure

    size = (3.6 * len(spaces), 4.4)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    figure.suptitle(title, fontsize="medium")
    taken = sorted(set(labels.tolist()), key=lambda i: -(labels == i).sum())
    order = np.random.default_rng(0).permutation(len(labels))  # none covers another
    grid = figure.subplots(1, len(spaces), squeeze=False)
    for axes, (name, points) in zip(grid.flat, spaces.items(), strict=True):
        for part in np.array_split(order, 8):
            for number, label in enumerate(taken):
                x, y = points[part[labels[part] == label]].T
                colour, marker = colour_and_marker(number)
                style = {"c": colour, "marker": marker, "alpha": 0.6, "linewidths": 0}
                axes.scatter(x, y, s=9, **style)
        axes.set_title(name, fontsize="medium")
        axes.set_xticks([])
        axes.set_yticks([])
    from matplotlib.lines import Line2D

    handles = []
    for number, label in enumerate(taken):
        colour, marker = colour_and_marker(number)
        style = {"c": colour, "marker": marker, "label": label_text(names[label])}
        handles.append(Line2D([], [], ls="", **style))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=2 * len(spaces),
        fontsize="small",
    )
    figure.savefig(path, format="png")
