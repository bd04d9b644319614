"""What is served under which names, as the command line says it."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxnets.errors import UserError
from jaxnets.run.resolve import resolve
from jaxnets.serve.limits import NAME


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a served model comes from."""

    name: str
    path: str  # what `jaxnets.load` takes
    checkpoint: str | int = "best"

    @classmethod
    def parse(cls, text: str, checkpoint: str | int = "best") -> "Source":
        """Reads `MODEL` or `NAME=MODEL`, which `jaxnets.run.resolve` describes."""
        found = resolve(text)
        if not NAME.fullmatch(found.name):
            raise UserError(
                f"--model {text}: a name has letters, digits, '.', '_' and '-', found {found.name!r}: NAME=MODEL"
            )
        return cls(name=found.name, path=str(found), checkpoint=checkpoint)


@dataclass(frozen=True)
class Split:
    """A name whose requests go to several models, each with its share."""

    name: str
    shares: Mapping[str, float]  # add up to 1

    @classmethod
    def parse(cls, text: str) -> "Split":
        """Reads `NAME=A:0.9,B:0.1`."""
        name, _, items = text.partition("=")
        try:
            shares = {item.rpartition(":")[0]: float(item.rpartition(":")[2]) for item in items.split(",")}
        except ValueError:
            shares = {}
        right = shares and all(0 <= share <= 1 for share in shares.values()) and abs(sum(shares.values()) - 1) < 1e-6
        if not NAME.fullmatch(name) or not right:
            raise UserError(f"--split must be NAME=A:0.9,B:0.1 with shares that add up to 1, found {text!r}")
        return cls(name, shares)
