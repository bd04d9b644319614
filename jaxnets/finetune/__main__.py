"""Cross-validates a head on features: `python -m jaxnets.finetune --config.data.source=folder:DIR [--folds 5]`.

It says how good a fine-tune's head is on images that it has not seen, with the spread over folds, and makes no run;
`python -m jaxnets.main --config finetune` makes one.
"""

import argparse

from jaxnets import cli
from jaxnets.data.absolute import with_absolute_paths
from jaxnets.errors import UserError
from jaxnets.flags import load_config
from jaxnets.keys import ConfigParser
from jaxnets.terminal import json_text


def main() -> None:
    parser = ConfigParser(
        prog="python -m jaxnets.finetune",
        description="Cross-validate the head that a fine-tune solves on features, which are computed once.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", default="finetune", help="a config file, or the name of one (default: finetune)")
    parser.add_argument("--folds", type=int, default=5, help="parts, each of which is held out once (default 5)")
    parser.add_argument("--seeds", type=int, default=1, help="how often the images are divided anew (default 1)")
    parser.add_argument("--json", action="store_true", help="one JSON object, with the fold of each image")
    cli.run(parser, _cross_validate, takes_rest=True)


def _cross_validate(options: argparse.Namespace, overrides: list[str]) -> int:
    config = with_absolute_paths(load_config(options.config, overrides))
    if options.seeds < 1:
        raise UserError(f"--seeds must be 1 or more, found {options.seeds}")

    from jaxnets.finetune.folds import cross_validate
    from jaxnets.train.display import Display

    display = Display(quiet=options.json)
    found = cross_validate(config, folds=options.folds, seeds=range(options.seeds), display=display)
    figures = [name for name, value in found.folds[0].figures.items() if isinstance(value, float)]
    if options.json:
        content = {
            "source": config.data.source,
            "seconds": round(found.seconds, 2),
            "figures": {name: found.summary(name) for name in figures},
            "folds": [vars(fold) for fold in found.folds],
            "names": found.names,
            "fold_of": {str(seed): numbers for seed, numbers in found.fold_of.items()},
        }
        print(json_text(content))
        return 0
    for name in figures:
        mean, spread = found.summary(name)
        percent = name.endswith("accuracy")
        shown = f"{mean:.2%} ± {spread:.2%}" if percent else f"{mean:.4g} ± {spread:.2g}"
        display.say(f"{name}: {shown} (mean and standard deviation of {len(found.folds)} folds)")
    return 0


if __name__ == "__main__":
    main()
