"""A collection as a page to search, and as a JSON interface: `--mode=serve`.

One idea a file: `change_log` keeps what was added and removed, `live_index` searches an
index that changes, `encoder` and `batcher` encode many queries together, `shelf` knows
what is shown of an item, `service` puts them together, `app` is its face, `guard`,
`reading` and `connection` refuse what must not come in, `memory` gives
back what large pictures took, `metrics` counts, `page/` is the page.

Needs `pip install 'modal-aware-jax[serve]'`.
"""
