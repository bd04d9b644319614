"""Which file each cell of a table means: with or without its suffix, in the table's folder or in one below it."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from jaxnets.data.decode import SUFFIXES
from jaxnets.data.sources.names import composed, printable
from jaxnets.data.sources.split_names import role_of
from jaxnets.data.sources.table.tree import Tree
from jaxnets.errors import UserError, quoted

_PLAIN = re.compile(r"(?!\w+://)[^/\\\0]+(/[^/.\\\0][^/\\\0]*)*")  # no step back, no link to itself, no address
_NAMED = 5  # rows that a message names
_ALIKE = 3  # folders that it names

Place = Callable[[int], str]  # how messages call a row


@dataclass
class Located:
    names: list[str | None]  # of each row's file, from the root; None where there is none
    own: list[str | None]  # what of them the row says itself, wherever root and files lie; with the file's suffix
    notes: list[str] = field(default_factory=list)


def locate(
    cells: Sequence[str], roles: Sequence[str], root: str, beside: str, tree: Tree, title: str, place: Place
) -> Located:
    """Finds the files that the cells of a column name.

    A cell is a path from `root`, else from the table's own folder, with or without a suffix of an image. What is not
    there is looked for in all folders below the root, as contests have `labels.csv` beside `train/` and `test/`: if
    one of them holds all that are found, it is that one, else each file must be in one place alone, or in one place
    alone whose name is that of the row's split.

    Args:
        cells: of the column.
        roles: which split each row belongs to.
        root: folder that paths may not leave, however they are written; links in it are followed.
        beside: the folder of the table.
        tree: what lies below the root.
        title: what messages call the table.
        place: what they call a row.

    Raises:
        UserError: for an empty cell, a path that leaves the root, a web address, or a file that may be one of several.
    """
    inner = beside[len(root) :].strip("/") if beside == root or beside.startswith(root.rstrip("/") + "/") else None
    meant = [_within(cell, root, beside, inner, title, place, row) for row, cell in enumerate(cells)]
    listing = _Listing(tree)
    found = [next(filter(None, (listing.find(name, title) for name in names)), None) for names, _ in meant]
    absent = [row for row, name in enumerate(found) if name is None]
    notes: list[str] = []
    if absent:
        notes += _search_below([names[0] for names, _ in meant], found, absent, roles, tree, title, place)
    own = [
        None if name is None else "/".join(name.split("/")[-depth:])
        for name, (_, depth) in zip(found, meant, strict=True)
    ]
    return Located(found, own, notes)


def missing_message(
    cells: Sequence[str], missing: Sequence[int], root: str, tree: Tree, title: str, place: Place
) -> str:
    """Returns what is said of rows whose files are not there, and which file of another suffix there is."""
    named = ", ".join(f"{place(row)}: {quoted(cells[row])}" for row in missing[:_NAMED])
    more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
    return (
        f"{title} names {len(missing):,} images (of {len(cells):,}) that are not in {printable(root)} or below it "
        f"({named}{more})" + _with_another_suffix(cells[missing[0]], tree)
    )


def _with_another_suffix(cell: str, tree: Tree) -> str:
    stem = composed(os.path.splitext(cell.strip().rpartition("/")[2])[0])
    for folder, images in tree.walk():
        for name in images:
            if composed(os.path.splitext(name)[0]) == stem:
                return f", though there is {printable(_join(folder, name))}"
    return ""


def _within(
    cell: str, root: str, beside: str, inner: str | None, title: str, place: Place, row: int
) -> tuple[list[str], int]:
    """Returns the paths from the root that a cell may mean: written from there, or from the table's own folder.

    And how many names at the end of them are the row's own: all that it writes; of a path that is absolute or steps
    back, those from the root or from the table's folder, whichever is nearer. `inner` is that folder's path from the
    root, None where it lies elsewhere.
    """
    text = cell.strip()
    if text and text[0] not in "./" and _PLAIN.fullmatch(text):  # most are: a million in a second
        return [text, f"{inner}/{text}"] if inner else [text], text.count("/") + 1
    if not text or "\0" in text:
        raise UserError(f"{title}, {place(row)}: expected an image's path, found {quoted(cell)}")
    if text.startswith("gs://") and root.startswith("/"):
        text = text.removeprefix("gs:/")  # as the root of a bucket is written here
    if text.startswith(("http://", "https://")):
        raise UserError(
            f"{title}, {place(row)}: {quoted(text)} is an address in the web: download the images, and write their "
            f"paths instead"
        )
    if "\\" in text and "/" not in text and not os.path.lexists(os.path.join(root, text)):
        text = text.replace("\\", "/")  # written on Windows
    tried = [os.path.normpath(os.path.join(folder, text)) for folder in (root, beside)]
    inside = [path[len(root) :].lstrip("/") for path in tried if root == "/" or path.startswith(root + os.sep)]
    if inside := list(dict.fromkeys(filter(None, inside))):
        from_table = [path[len(beside) :].lstrip("/") for path in tried if path.startswith(beside + "/")]
        return inside, min(path.count("/") + 1 for path in (*inside, *from_table))
    common = os.path.commonpath([tried[-1], root])
    raise UserError(
        f"{title}, {place(row)}: {quoted(text)} leads out of {printable(root)}, which a table may not do unasked: "
        f"config.data.root={quoted(common)[1:-1]} allows it"
    )


class _Listing:
    """The names in folders, each folder read once."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._names: dict[str, Collection[str]] = {}
        self._alike: dict[str, dict[str, list[str]]] = {}

    def find(self, name: str, title: str) -> str | None:
        """Returns the path, from the root, of a file of this name or of an image of it with a suffix."""
        folder, _, base = name.rpartition("/")
        if folder not in self._names:
            self._names[folder] = self._tree.names(folder)
        if base in self._names[folder] and (base.lower().endswith(SUFFIXES) or not self._tree.is_folder(name)):
            return name
        if folder not in self._alike:
            self._alike[folder] = _by_alike(self._names[folder])
        candidates = self._alike[folder].get(composed(base), [])
        return _join(folder, _one_suffix(candidates, folder, base, title)) if candidates else None


def _by_alike(names: Collection[str]) -> dict[str, list[str]]:
    """Returns the images by what a cell may call them, with their suffix and without."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in SUFFIXES:
            alike[composed(stem)].append(name)
            alike[composed(name)].append(name)
    return alike


def _one_suffix(candidates: list[str], folder: str, base: str, title: str) -> str:
    if len(candidates) > 1:
        listed = " and ".join(sorted(printable(name) for name in candidates))
        raise UserError(
            f"{title} has {quoted(base)}, and {printable(folder) or 'its folder'} has {listed}: write the suffix too"
        )
    return candidates[0]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _search_below(
    names: Sequence[str],
    found: list[str | None],
    absent: Sequence[int],
    roles: Sequence[str],
    tree: Tree,
    title: str,
    place: Place,
) -> Iterator[str]:
    """Fills in the files that lie in folders below the root; yields notes."""
    wanted = {composed(names[row].rpartition("/")[2]) for row in absent}
    where: dict[str, list[tuple[str, str]]] = defaultdict(list)  # what a cell may end with → folder and file
    for own, images in tree.walk():
        for name in images:
            for written in {composed(name), composed(os.path.splitext(name)[0])}:
                if written in wanted:
                    where[written].append((own, name))
    # Of a row: what stands before its path, from the root → the file.
    choices: dict[int, dict[str, str]] = {}
    for row in absent:
        above, _, base = names[row].rpartition("/")
        options: dict[str, str] = {}
        for own, name in where.get(composed(base), ()):
            if own == above or own.endswith("/" + above) or not above:
                before = own[: len(own) - len(above)].rstrip("/") if above else own
                if before in options:
                    _one_suffix([options[before].rpartition("/")[2], name], own, base, title)
                options[before] = _join(own, name)
        if options:
            choices[row] = options
    if not choices:
        return
    covered = Counter(before for options in choices.values() for before in options)
    whole = [before for before, count in covered.items() if count == len(choices)]
    divided = len(set(roles)) > 1
    if len(whole) > 1 and not divided:  # train/1.jpg and test/1.jpg
        own_role = {roles[row] for row in choices}
        whole = [before for before in whole if role_of(os.path.basename(before)) in own_role] or whole
    if len(whole) == 1:
        for row, options in choices.items():
            found[row] = options[whole[0]]
        yield f"the images of {title} lie in {printable(whole[0])}"
        return
    for row, options in choices.items():
        if len(options) > 1:
            named = [before for before in options if role_of(os.path.basename(before)) == roles[row]]
            if len(named) != 1:
                listed = ", ".join(printable(path) for path in sorted(options.values())[:_ALIKE])
                raise UserError(
                    f"{title}, {place(row)}: {quoted(names[row])} may be any of {listed}: write the folder too, or set "
                    f"config.data.root to the folder that is meant"
                )
            found[row] = options[named[0]]
        else:
            found[row] = next(iter(options.values()))
    places = ", ".join(printable(before) for before in sorted(covered)[:_ALIKE])
    yield f"the images of {title} lie in {places}" + (f" and {len(covered) - _ALIKE} more" * (len(covered) > _ALIKE))
