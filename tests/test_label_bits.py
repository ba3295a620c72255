"""Shared labels from bitmaps against the product of the label matrices."""

import numpy as np
import pytest

from modal_aware_jax.retrieval import label_bits
from modal_aware_jax.retrieval.inputs import check_inputs


@pytest.mark.parametrize("labels", [1, 32, 81])
@pytest.mark.parametrize("chunk", [1504, 2**18])
def test_rows_that_share_labels(labels, chunk, monkeypatch):
    monkeypatch.setattr(label_bits, "CHUNK_ROWS", chunk)
    rng = np.random.default_rng(labels)
    own, theirs = (rng.random((n, labels)) < 0.1 for n in (9, 4001))
    own[0], theirs[0] = False, True
    codes = [np.zeros((len(x), 1), np.uint32) for x in (own, theirs)]
    bits = label_bits.LabelBits(check_inputs("test", *codes, own, theirs, 8))
    expected = own.astype(int) @ theirs.T.astype(int)  # [Q, N]
    for rows in (slice(0, 4001), slice(800, 1608), slice(4000, 4001)):
        for query in range(9):
            wanted = expected[query, rows]
            np.testing.assert_array_equal(bits.shared(query, rows), wanted > 0)
            found = bits.num_shared(query, rows, np.uint8)
            np.testing.assert_array_equal(found, wanted)


def test_no_query_has_a_label():
    codes = np.zeros((3, 1), np.uint32)
    labels = np.zeros((3, 5), bool)
    bits = label_bits.LabelBits(check_inputs("test", codes, codes, labels, labels, 8))
    assert not bits.shared(1, slice(0, 3)).any()
