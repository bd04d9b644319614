"""Whether a candidate answers with the classes of the model that it is to take over from."""

from collections.abc import Sequence

from jaxnets.errors import UserError
from jaxnets.serve.served import ServedModel


def check_alike(stable: ServedModel, candidate: ServedModel) -> None:
    """Refuses a candidate that answers with other classes.

    Raises:
        UserError: if it does.
    """
    old, new = stable.current.predictor, candidate.current.predictor
    if old.several_labels != new.several_labels:
        kinds = {True: "several labels an image", False: "one label an image"}
        raise UserError(
            f"{candidate.name} cannot take over from {stable.name}: it has {kinds[new.several_labels]}, and "
            f"{stable.name} {kinds[old.several_labels]}: serve it under a name of its own"
        )
    if sorted(old.labels) != sorted(new.labels):
        raise UserError(
            f"{candidate.name} cannot take over from {stable.name}: it has {_different(new.labels, old.labels)}, and "
            f"{stable.name} {_different(old.labels, new.labels)}: train it on the same classes, or serve it under a "
            "name of its own"
        )


def _different(labels: Sequence[str], others: Sequence[str]) -> str:
    only = [label for label in labels if label not in set(others)]
    more = f", and alone {', '.join(map(ascii, only[:3]))}{', …' if len(only) > 3 else ''}" if only else ""
    return f"{len(labels)} classes{more}"
