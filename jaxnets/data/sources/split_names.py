"""Which split a folder's name means: `train`, `Test_Set`, `imgs-val`, `seg_train` beside `seg_test`."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

from jaxnets.errors import UserError

Role = Literal["train", "test", "validation", "unlabelled"]

_WORDS: dict[Role, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainval", "trainvalid"),
    "test": ("test", "testing", "tst"),
    "validation": (
        "val", "valid", "validation", "validate", "validating", "dev", "devel", "development", "eval", "evaluation",
    ),
    "unlabelled": ("pred", "predict", "prediction", "predictions", "unlabelled", "unlabeled", "unsup", "inference"),
}  # fmt: skip
_ONE_FOLDER: tuple[Role, ...] = ("train", "test", "validation")
# Words that say nothing about what the images show.
_FILLERS = frozenset(
    {
        *("set", "sets", "data", "dataset", "datasets", "split", "splits", "sample", "samples", "raw", "full", "all"),
        *("image", "images", "img", "imgs", "pic", "pics", "picture", "pictures", "photo", "photos"),
        *("folder", "folders", "dir", "directory", "file", "files", "jpg", "jpeg", "png"),
    }
)
_ROLES: dict[str, Role] = {word: role for role, words in _WORDS.items() for word in words}
_GLUED: dict[str, Role] = {  # trainset, testdata, imgstrain
    glued: role for word, role in _ROLES.items() for filler in _FILLERS for glued in (word + filler, filler + word)
}
_PLURALS: dict[str, Role] = {word + "s": role for word, role in _ROLES.items()}


def split_roles(names: Iterable[str], where: str, *, alone: bool = False) -> Mapping[Role, list[str]]:
    """Returns which of the folders that lie side by side are which splits; what is not in it is none.

    A name of nothing but a split's word, fillers and numbers means that split (`train`, `training_set`, `Test Data`,
    `train2017`), the shortest first. One with other words (`seg_train`, `trains`) does so only beside one that differs
    from it in the split's word alone (`seg_test`, `tests`) where one of them means train: `steam_train` may be a class.
    With `alone` it does so without such a neighbour.

    Raises:
        UserError: if two folders mean the same split.
    """
    plain: dict[Role, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    alike: dict[str, dict[Role, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        role, pattern, others = _parse(name)
        if role is not None:
            if others == 0:
                plain[role][0 if pattern == "*" else 1].append(name)
            else:
                alike[pattern][role].append(name)
    found = {role: ranks[min(ranks)] for role, ranks in plain.items()}
    for roles in alike.values():
        if alone or ("train" in roles and len(roles) > 1):
            for role, members in roles.items():
                if role not in plain:
                    found[role] = found.get(role, []) + members
    for split in _ONE_FOLDER:
        members = found.get(split, [])
        if len(members) > 1:
            raise UserError(
                f"{where} has {' and '.join(sorted(members))}, and each may be the {split} split: put them into one "
                f"folder, or rename those that are not, to train, val and test as they are meant"
            )
    return found


def role_of(name: str) -> Role | None:
    """Returns the split that a folder's name speaks of, whatever other words it has; None if it speaks of none."""
    return _parse(name)[0]


def is_one_word(name: str) -> bool:
    """Returns whether a name is a split's word and nothing else: `train`, which may be a thing as well."""
    return _parse(name)[1] == "*"


def _parse(name: str) -> tuple[Role | None, str, int]:
    """Returns the split's role, the name with `*` in its place, and how many words it has of its own beside it."""
    text = unicodedata.normalize("NFC", name)
    words = [word.casefold() for word in re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))]
    roles: set[Role] = set()
    pattern: list[str] = []
    own = 0
    for word in words:
        role = _ROLES.get(word) or _GLUED.get(word) or _PLURALS.get(word)
        if role is not None:
            roles.add(role)
            own += word in _PLURALS  # trains and tests may be splits, or things
            pattern.append("*")
        else:
            own += word not in _FILLERS and not word.isdecimal()
            pattern.append(word)
    if roles == {"train", "validation"}:  # train_val: both in one
        roles = {"train"}
    return (next(iter(roles)) if len(roles) == 1 else None), " ".join(pattern), own
