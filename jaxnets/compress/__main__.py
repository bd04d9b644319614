"""Makes a trained network smaller: `python -m jaxnets.compress --workdir A --out B --method magnitude|channels|qat`.

B is an ordinary run; the same command on the same B goes on where it stopped.
"""

import argparse

from jaxnets import cli
from jaxnets.flags import changes_of
from jaxnets.keys import ConfigParser
from jaxnets.recipe.compress import METHODS


def main() -> None:
    parser = ConfigParser(
        prog="python -m jaxnets.compress",
        description=(
            "Make a run's network smaller and train it on, with the run's own config but for half the epochs at half "
            "the rate (qat: a quarter of the epochs at a tenth), and whatever --config.KEY=VALUE says."
        ),
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", required=True, help="the run whose best weights it starts from; it stays as it is")
    parser.add_argument("--out", required=True, help="the run directory to make, or to go on with")
    parser.add_argument(
        "--method",
        required=True,
        choices=METHODS,
        help="magnitude: single weights become zero; channels: whole channels go, and the network is smaller; qat: it "
        "learns to compute in 8 bits, and is exported so",
    )
    parser.add_argument(
        "--keep",
        type=float,
        help="share that stays, of the weights or (channels) of the multiply-adds (default: 0.5; not for qat)",
    )
    cli.run(parser, _compress, takes_rest=True)


def _compress(options: argparse.Namespace, overrides: list[str]) -> int:
    changes = dict(changes_of(overrides))

    from jaxnets.compress.run import compress  # JAX and all that: after the keys are known to be right

    outcome = compress(
        options.workdir,
        options.out,
        method=options.method,
        keep=options.keep,
        config=changes,
        quiet=False,
    )
    return outcome.status


if __name__ == "__main__":
    main()
