"""How a folder of image files is laid out: which folders are splits, which are classes, and what is neither.

What cannot be told is refused: a split that is read as a class trains, and ends with a number that means nothing.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxnets.data.decode import SUFFIXES
from jaxnets.data.sources.names import printable
from jaxnets.data.sources.scan import Folder, counted, image_paths, other_files
from jaxnets.data.sources.split_names import Role, is_one_word, role_of, split_roles
from jaxnets.errors import UserError, nearest

EXPECTED = "DIR/train/CLASS/*.jpg with DIR/test/CLASS/*.jpg, or DIR/CLASS/*.jpg"
_BY_HAND = "list the images and their classes in a file and give list:FILE"
_DEEPEST = 8  # folders within folders that are entered
_FEW = 10  # folders side by side that may be splits or domains under names that are not known

Classes = Mapping[str, Sequence[Folder]]  # class name → its folders: two where one name is written in two ways


@dataclass
class Layout:
    splits: dict[str, tuple[Folder, Classes]] = field(default_factory=dict)  # with the folder that the classes lie in
    unlabelled: dict[str, list[str]] = field(default_factory=dict)  # folder, from the root → paths of its images
    notes: list[str] = field(default_factory=list)


def read_layout(root: Folder) -> Layout:
    """Finds the splits and classes to train on.

    Returns:
        A layout with "train", and with "test" and "validation" where they are there and have labels; where there is a
        validation split and no test split, it is the test split.

    Raises:
        UserError: if the layout is none of those known, or may be read in two ways.
    """
    layout = Layout()
    folder = _enter(root, stop_at_splits=True)
    _say_entered(root, folder, layout)
    roles = _by_role(folder)
    train, others = roles.get("train"), [child for child in folder.with_images if not _has_role(child, roles)]
    if train is None or (others and roles.keys() == {"train"} and _may_be_a_class(train[0])):
        layout.splits["train"] = folder, _classes(folder)
        _say_left_out(folder, layout)
        return layout
    if others and not ({"test", "validation"} & roles.keys()):
        raise UserError(
            f"{_show(folder)} has {_names(others)} beside {train[0].name}, and what they are cannot be told: call them "
            f"test and val if they are splits; if they are not, give folder:{_show(train[0])}, or move them away"
        )
    inside = _enter(train[0])
    classes = _classes(inside)
    layout.splits["train"] = inside, classes
    _say_left_out(inside, layout)
    for role in ("test", "validation"):
        for candidate in roles.get(role, ()):
            labelled = _labelled(candidate, classes, layout, root)
            if labelled is not None:
                layout.splits[role] = labelled
    if "test" not in layout.splits and "validation" in layout.splits:
        layout.splits["test"] = layout.splits.pop("validation")
    for candidate in (*roles.get("unlabelled", ()), *others):
        _pass_over(candidate, layout, root, classes)
    for child in folder.folders:
        if not child.has_images and not _has_role(child, roles):
            layout.notes.append(f"passed over {_from(root, child)}: no images")
    _say_splits(layout, root)
    return layout


def read_labelled(root: Folder, class_names: Sequence[str]) -> Layout:
    """Finds images of known classes, to evaluate on: `DIR/CLASS/*`, or splits of it in their folders.

    Returns:
        A layout with the splits that are there; images that are in no split are the split "all".

    Raises:
        UserError: if there are none, or if there is a class that is not among the known ones.
    """
    layout = Layout()
    folder = _enter(root, class_names, stop_at_splits=True)
    _say_entered(root, folder, layout)
    known = set(class_names)
    direct = [child for child in folder.with_images if printable(child.name) in known and not _holds(child, known)]
    roles = {} if direct else _by_role(folder, alone=True)
    if not roles:
        labelled = _labelled(folder, dict.fromkeys(class_names, ()), layout, root)
        if labelled is None:
            raise UserError(
                f"{_show(folder)} has no folders called as classes of the model: expected some of "
                f"{_brief(class_names)}, as in DIR/CLASS/*.jpg or DIR/test/CLASS/*.jpg"
            )
        layout.splits["all"] = labelled
        return layout
    for role, candidates in roles.items():
        for candidate in candidates:
            found = None if role == "unlabelled" else _labelled(candidate, dict.fromkeys(class_names, ()), layout, root)
            if found is not None:
                layout.splits[role] = found
    for child in folder.with_images:
        if not _has_role(child, roles) or child in roles.get("unlabelled", ()):
            _pass_over(child, layout, root, class_names)
    if not layout.splits:
        raise UserError(
            f"{_show(folder)} has no split with folders called as classes of the model: expected some of "
            f"{_brief(class_names)}"
        )
    _say_splits(layout, root)
    return layout


def _enter(folder: Folder, stop: Collection[str] = (), *, stop_at_splits: bool = False) -> Folder:
    """Goes down as long as all images lie in folders of one folder that is called as none of `stop`."""
    for _ in range(_DEEPEST):
        if folder.images or len(folder.with_images) != 1:
            break
        only = folder.with_images[0]
        if not only.with_images or printable(only.name) in stop or (stop_at_splits and split_roles([only.name], "")):
            break
        folder = only
    return folder


def _by_role(folder: Folder, *, alone: bool = False) -> dict[Role, list[Folder]]:
    children = {child.name: child for child in folder.folders}
    roles = split_roles(children, _show(folder), alone=alone)
    return {role: [children[name] for name in names] for role, names in roles.items()}


def _has_role(child: Folder, roles: Mapping[Role, list[Folder]]) -> bool:
    return any(child in members for members in roles.values())


def _may_be_a_class(train: Folder) -> bool:
    """Vehicles may have a class "train": one word, with images where a split has folders."""
    return not train.with_images and is_one_word(train.name)


def _refuse_splits_among_classes(folder: Folder) -> None:
    roles = _by_role(folder)
    for role in ("test", "validation"):
        for child in roles.get(role, ()):
            # A class may well be called "valid", beside "invalid"; unlabelled images are kept as "test".
            if child.with_images or (role == "test" and len(folder.with_images) > 1):
                beside = [other for other in folder.with_images if other is not child]
                raise UserError(
                    f"{_show(folder)} has {child.name}, the name of a split, and no train folder"
                    + (f" but {_names(beside)}" if beside else "")
                    + f": put the class folders to train on into {_show(folder)}/train; if {child.name} is a class, "
                    f"rename it (class_{child.name}); to train on it alone, give folder:{_show(child)}"
                )


def _classes(folder: Folder) -> Classes:
    """Returns the classes whose folders lie in a folder, each with images."""
    _refuse_splits_among_classes(folder)
    classes: dict[str, list[Folder]] = {}
    for child in folder.folders:
        classes.setdefault(printable(child.name), []).append(child)
    if len(classes) < 2:
        raise UserError(_too_few(folder, list(classes)))
    for members in classes.values():
        if not any(member.has_images for member in members):
            raise UserError(
                f"the class folder {_show(members[0])} has no image files ({', '.join(SUFFIXES)}), found "
                f"{counted(other_files(members)) or 'nothing'}: add images, or remove the folder"
            )
    roles = {role_of(name) for name in classes}
    if None not in roles and "train" in roles and len(roles) > 1:
        raise UserError(
            f"{_show(folder)} has {_names(folder.with_images)}, which look like splits whose classes are not known: "
            f"expected {EXPECTED}; or {_BY_HAND}"
        )
    _refuse_hidden_splits(folder)
    return classes


def _refuse_hidden_splits(folder: Folder) -> None:
    """Refuses class folders that hold splits, and splits under names that are not known.

    Classes may have folders, but where a few folders hold no images and the same folders, which is the class?
    """
    children = folder.with_images
    for child in children:
        role = role_of(child.name)
        if role is not None and len(child.with_images) > 1:
            raise UserError(
                f"{_show(folder)} has {child.name}, which looks like the {role} split and holds folders "
                f"({_names(child.with_images)}), beside {_names(other for other in children if other is not child)}: "
                f"call the splits train, val and test, and move other folders away; if {child.name} is a class, put "
                f"its images into it directly"
            )
        inner = split_roles((below.name for below in child.with_images), _show(child))
        if "train" in inner and len(inner) > 1:
            raise UserError(
                f"{_show(child)} holds splits ({_names(child.with_images)}) where a class should hold images: expected "
                f"{EXPECTED}; or {_BY_HAND}"
            )
    if sum(bool(child.images) for child in children) > len(children) / 2:
        return
    shared = set.intersection(*({below.name for below in child.with_images} for child in children))
    if len(shared) >= 2 and (len(children) <= _FEW or len(shared) >= len(children)):
        raise UserError(
            f"{_show(folder)} has {_names(children)}, and each has {_brief(sorted(shared))}: which are the classes "
            f"cannot be told. Splits are called train, val and test; images of a class lie in its folder; or {_BY_HAND}"
        )


def _labelled(folder: Folder, classes: Classes, layout: Layout, root: Folder) -> tuple[Folder, Classes] | None:
    """Returns the folder and those of the classes that have images in it; None where its images have no labels.

    Raises:
        UserError: if it has a class that is not among the given ones.
    """
    inside = _enter(folder, classes)
    present: dict[str, list[Folder]] = {}
    for child in inside.with_images:
        present.setdefault(printable(child.name), []).append(child)
    unknown = [name for name in present if name not in classes]
    if present and not unknown:
        if empty := [child for child in inside.folders if not child.has_images and printable(child.name) in classes]:
            layout.notes.append(f"{_from(root, inside)} has no images of {_names(empty)}")
        _say_left_out(inside, layout)
        return inside, {name: present[name] for name in classes if name in present}
    if len(unknown) < len(present) or len(present) > 1 or any(nearest(name, classes) for name in unknown):
        raise UserError(
            f"{_show(inside)} has the class {unknown[0]!r}{nearest(unknown[0], classes)}"
            + (f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else "")
            + f", which is none of the {len(classes)} known ones ({_brief(classes)}): rename it, add training images "
            f"of it, or remove it"
        )
    _pass_over(folder, layout, root, classes)
    return None


def _pass_over(folder: Folder, layout: Layout, root: Folder, classes: Collection[str]) -> None:
    paths = image_paths([folder])
    name = _from(root, folder)
    called = [child for child in _enter(folder, classes).with_images if printable(child.name) in classes]
    if called:
        layout.notes.append(
            f"passed over {name}: {len(paths):,} images, in folders called as classes ({_names(called)}) but in none "
            f"called as a split (train, val, test)"
        )
        return
    if paths:
        layout.unlabelled[name] = paths
    found = (
        f"{len(paths):,} images without a label"
        if paths
        else f"no images, but {counted(other_files([folder])) or 'nothing'}"
    )
    layout.notes.append(f"passed over {name}: {found}")


def _say_entered(root: Folder, folder: Folder, layout: Layout) -> None:
    if folder is not root:
        layout.notes.append(f"entered {_show(folder)}, where all images of {_show(root)} lie")


def _say_left_out(folder: Folder, layout: Layout) -> None:
    if folder.images:
        layout.notes.append(
            f"passed over {len(folder.images):,} images directly in {_show(folder)}: they are in no class's folder"
        )
    if folder.broken:
        layout.notes.append(
            f"passed over links in {_show(folder)} that lead nowhere: {_brief(map(printable, folder.broken))}"
        )


def _say_splits(layout: Layout, root: Folder) -> None:
    read = {split: _from(root, folder) for split, (folder, _) in layout.splits.items()}
    if any(split != folder for split, folder in read.items()):
        layout.notes.append("splits: " + ", ".join(f"{split} from {folder}" for split, folder in read.items()))


def _holds(folder: Folder, names: set[str]) -> bool:
    return any(printable(child.name) in names for child in folder.with_images)


def _too_few(folder: Folder, names: list[str]) -> str:
    found = f"{len(names)} class folder ({names[0]})" if names else "no class folders"
    return (
        f"{_show(folder)} must have two or more class folders with images in them, found {found}"
        + (
            f" and {len(folder.images)} images that belong to no class: move each into its class's folder, or "
            f"{_BY_HAND}"
            if folder.images
            else ""
        )
        + f"; expected {EXPECTED}"
    )


def _show(folder: Folder) -> str:
    return printable(folder.path)


def _from(root: Folder, folder: Folder) -> str:
    return printable(folder.path[len(root.path) :].strip("/")) or _show(folder)


def _names(folders: Iterable[Folder]) -> str:
    return _brief([printable(folder.name) for folder in folders])


def _brief(names: Iterable[str], most: int = 6) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
