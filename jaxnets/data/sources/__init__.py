"""Sources of labelled images, opened by the name that `config.data.source` gives."""

from jaxnets.config import DataConfig
from jaxnets.data.sources.base import ArraySplit, CorruptImage, Source, Split
from jaxnets.errors import UserError, nearest

__all__ = ["ArraySplit", "CorruptImage", "Source", "Split", "open_source"]

_KINDS = {"digits": "digits", "idx": "idx:DIR", "folder": "folder:DIR", "tfds": "tfds:NAME"}


def open_source(spec: DataConfig, seed: int) -> Source:
    """Opens the data set that `spec.source` names.

    Args:
        spec: `source` says which: "digits", "idx:DIR", "folder:DIR" or "tfds:NAME"; `test_share` is what becomes the
            test split of a data set that has none; `directory` is where TFDS keeps its data.
        seed: of such a test split.

    Returns:
        The source, with a "train" and a "test" split at least. Images that cannot be decoded are found when they are
        read, not here.

    Raises:
        UserError: if the name is unknown or incomplete, or the data set is missing or not laid out as its kind needs.
    """
    kind, colon, rest = spec.source.partition(":")
    valid = ", ".join(_KINDS.values())
    if kind not in _KINDS:
        if kind.startswith(("/", "~", ".")) or (colon == "" and "/" in kind):
            raise UserError(f"config.data.source {spec.source!r} looks like a path: write folder:{spec.source}")
        raise UserError(f"config.data.source must be one of {valid}, found {spec.source!r}{nearest(kind, _KINDS)}")
    if kind == "digits":
        if colon:
            raise UserError(f"config.data.source digits takes nothing after it, found {spec.source!r}")
        from jaxnets.data.sources.digits import open_digits

        return open_digits()
    if not rest.strip():
        raise UserError(f"config.data.source must be {_KINDS[kind]}, found {spec.source!r}")
    # Each kind is a leaf that is imported when it is asked for: TFDS alone takes half a second.
    if kind == "idx":
        from jaxnets.data.sources.idx import open_idx

        return open_idx(rest)
    if kind == "folder":
        from jaxnets.data.sources.folder import open_folder

        return open_folder(rest, test_share=spec.test_share, seed=seed)
    from jaxnets.data.sources.tfds import open_tfds

    return open_tfds(rest, directory=spec.directory, test_share=spec.test_share, seed=seed)
