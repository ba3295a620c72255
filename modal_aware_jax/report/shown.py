"""What a report's page shows of a pair."""

from modal_aware_jax.data.collection import Collection


def shown(pairs: Collection, position) -> tuple[bytes, str, list[str]]:
    """Image, caption and label names of a pair."""
    labels = [
        name
        for name, has in zip(pairs.label_names, pairs.labels[position], strict=True)
        if has
    ]
    return pairs.images[int(position)], pairs.captions[int(position)], labels
