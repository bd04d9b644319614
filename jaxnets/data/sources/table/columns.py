"""Which columns of a table are the image, its label, its split and its group."""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from jaxnets.config import TableConfig
from jaxnets.data.decode import SUFFIXES
from jaxnets.data.sources.split_names import Role
from jaxnets.errors import UserError, nearest, quoted

# What columns are called, in lower case and without signs. Of the first row that has one, it is that one.
_IMAGE = (
    ("image", "images", "img", "photo"),
    (
        *("file", "files", "filename", "filenames", "filepath", "filepaths", "fname", "path", "paths", "relativepath"),
        *("imagepath", "imagepaths", "imagefile", "imagefilename", "imagename", "imgpath", "imgname", "imgfile"),
    ),
    ("id", "ids", "imageid", "imgid", "idcode", "fileid", "isicid", "uuid", "name", "key"),
)
_LABEL = (
    (
        *("label", "labels", "class", "classes", "target", "targets", "category", "categories", "tag", "tags"),
        *("breed", "species", "variety", "diagnosis"),
    ),
    ("classname", "classnames", "labelname", "labelnames", "categoryname", "targetname"),
    ("classid", "labelid", "categoryid", "targetid", "classindex", "labelindex", "classidx", "labelidx"),
)
_SPLIT = (("split", "splits"), ("set", "subset", "dataset", "partition", "phase", "usage"))
_GROUP = (
    ("group", "groups", "groupid"),
    ("patient", "patientid", "subject", "subjectid", "person", "personid", "lesion", "lesionid"),
)
_FLAGS: dict[str, Role] = {  # columns of true and false
    "istrain": "train", "istraining": "train", "istrainingimage": "train", "istest": "test", "isvalid": "validation",
    "isval": "validation", "isvalidation": "validation",
}  # fmt: skip
_SHOWN = 12  # columns that a message lists


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of columns, as the table has them."""

    image: str
    label: str | None  # None: no row has one
    labels: tuple[str, ...]  # in its place, a column of 0 and 1 for each label
    split: str | None
    flag: Role | None  # what a split column of true and false says where it is true
    surely_split: bool  # False: it is none if its values name no splits
    group: str | None
    note: str | None
    names: tuple[str, ...] = ()  # of all columns, where they were read

    def wanted(self) -> list[str]:
        return [name for name in (self.image, self.label, *self.labels, self.split, self.group) if name is not None]


def choose(names: Sequence[str], title: str, spec: TableConfig, image: str | None = None) -> Columns:
    """Returns which columns are meant: those that the config names, else those with usual names.

    Where one column is left and none has the name of a label, it is the label; then the note says so.

    Args:
        names: of all columns.
        title: what messages call the table.
        spec: which names are given.
        image: the column of the images, where something else tells it and the config names none.

    Raises:
        UserError: if a column is missing, or more than one may be meant.
    """
    taken: set[str] = set()

    def find(key: str, given: str | None, tiers: Sequence[Collection[str]]) -> str | None:
        found = _named(names, given, title, key) if given else _usual(names, taken, tiers, title, key)
        taken.update([found] if found else [])
        return found

    # What is given first, so that no other column is taken for it.
    given_labels = tuple(_named(names, name, title, "labels") for name in spec.labels)
    if len(set(given_labels)) < len(given_labels):
        twice = next(name for name in given_labels if given_labels.count(name) > 1)
        raise UserError(f"config.data.table.labels names the column {quoted(twice)} twice: name each once")
    taken.update(given_labels)
    taken.update(_named(names, name, title, key) for key, name in _given(spec))
    if image is not None and not spec.image:
        taken.add(image)
        found_image: str | None = image
    else:
        found_image = find("image", spec.image, _IMAGE)
    if found_image is None:
        raise UserError(_no_image(names, title))
    label = None if given_labels else find("label", spec.label, _LABEL)
    split, flag, surely = None, None, True
    if spec.split != "":
        split = find("split", spec.split, _SPLIT) or find("split", None, [_FLAGS])
        flag = _FLAGS.get(_plain(split or ""))
        surely = bool(spec.split) or _plain(split or "") in (*_SPLIT[0], *_FLAGS)
    group = None if spec.group == "" else find("group", spec.group, _GROUP)
    note = None
    if label is None and not given_labels:
        rest = [name for name in names if name not in taken and not re.fullmatch(r"(unnamed\d*)?", _plain(name))]
        if len(rest) == 1:
            label = rest[0]
            note = f"the column {quoted(label)} of {title} is taken for the label: it is the only one left"
        elif rest:
            raise UserError(
                f"{title} has no column that is called like a label (label, class, target, …), found {_listed(names)}: "
                f"name it with config.data.table.label; or, where there is a column of 0 and 1 for each label, all of "
                f"them with config.data.table.labels"
            )
    for name in {found_image, label, *given_labels, split, group} - {None}:
        if list(names).count(name or "") > 1:
            raise UserError(f"{title} has {list(names).count(name or '')} columns called {quoted(name or '')}: rename")
    return Columns(
        image=found_image,
        label=label,
        labels=given_labels,
        split=split,
        flag=flag,
        surely_split=surely,
        group=group,
        note=note,
        names=tuple(names),
    )


def as_far_as_there(spec: TableConfig, names: Collection[str]) -> TableConfig:
    """Returns the spec without columns that a table does not have.

    A run is evaluated on other tables with the keys that it was trained with.
    """
    have = {_plain(name) for name in names}

    def there(name: str | None) -> str | None:
        return name if not name or _plain(name) in have else None

    return replace(
        spec,
        image=there(spec.image),
        label=there(spec.label),
        labels=spec.labels if all(map(there, spec.labels)) else (),
        split=there(spec.split),
        group=there(spec.group),
    )


def looks_like_data(cells: Sequence[str]) -> bool:
    """Whether a first row names an image's file, and so is no row of titles."""
    return any(cell.strip().lower().endswith(SUFFIXES) for cell in cells)


def _given(spec: TableConfig) -> list[tuple[str, str]]:
    given = {"image": spec.image, "label": spec.label, "split": spec.split, "group": spec.group}
    return [(key, name) for key, name in given.items() if name]


def _named(names: Sequence[str], given: str, title: str, key: str) -> str:
    if given in names:
        return given
    alike = [name for name in names if _plain(name) == _plain(given)]
    if len(alike) == 1:
        return alike[0]
    raise UserError(
        f"config.data.table.{key} names the column {given!r}, which {title} does not have{nearest(given, names)}; it "
        f"has {_listed(names)}"
    )


def _usual(
    names: Sequence[str], taken: Collection[str], tiers: Sequence[Collection[str]], title: str, key: str
) -> str | None:
    for tier in tiers:
        found = list(dict.fromkeys(name for name in names if name not in taken and _plain(name) in tier))
        if len(found) > 1:
            raise UserError(
                f"{title} has the columns {_listed(found)}, and each may be the {key}: say which with "
                f"config.data.table.{key}"
            )
        if found:
            return found[0]
    return None


def _no_image(names: Sequence[str], title: str) -> str:
    if looks_like_data(names):
        return (
            f"{title} has no line of titles: its first line is {_listed(names)}. Put one above it, 'image,label' for "
            f"example; or give list:FILE, which wants none"
        )
    return (
        f"{title} has no column that is called like an image (image, file, path, id, …), found {_listed(names)}: name "
        f"it with config.data.table.image"
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(quoted(name) for name in names[:_SHOWN])
    return (shown or "none") + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _plain(name: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isalnum())
