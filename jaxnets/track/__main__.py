"""Sends a run to its trackers, now: `python -m jaxnets.track --workdir DIR`, with --mlflow or --wandb to others."""

import argparse
from dataclasses import replace

from jaxnets import cli
from jaxnets.config_check import check_tracking
from jaxnets.data.absolute import absolute_store
from jaxnets.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.track",
        description="Send a run to MLflow or Weights & Biases: the rows, images and the report that they lack. A run "
        "that was tracked goes on as the same run there.",
    )
    parser.add_argument("--workdir", required=True, help="the run directory")
    parser.add_argument("--mlflow", metavar="URI", help="http://HOST:PORT, sqlite:///FILE, … (default: the run's own)")
    parser.add_argument("--experiment", help="of MLflow (default: the run's own, else jaxnets)")
    parser.add_argument("--wandb", metavar="PROJECT", help="PROJECT or ENTITY/PROJECT (default: the run's own)")
    parser.add_argument("--name", help="of the run there (default: the run's own, else that of its directory)")
    parser.add_argument(
        "--all", action="store_true", help="also rows after the newest checkpoint, which a resumed run writes anew"
    )
    cli.run(parser, _track)


def _track(options: argparse.Namespace, _: list[str]) -> int:
    from jaxnets.run.directory import open_run
    from jaxnets.track.begin import send
    from jaxnets.track.sender import reason

    run = open_run(options.workdir)
    config = run.read_config()
    given = {name: getattr(options, name) for name in ("mlflow", "experiment", "wandb", "name")}
    given["mlflow"] = absolute_store(given["mlflow"])
    asked = {name: value for name, value in given.items() if value is not None}
    if "mlflow" in asked or "wandb" in asked:  # these places, and not those of the run
        asked = {"mlflow": None, "wandb": None, **asked}
    track = replace(config.track, **asked)
    check_tracking(track, "--")
    if track.mlflow is None and track.wandb is None:
        raise UserError(f"{run.path} has no tracker: say with --mlflow URI or --wandb PROJECT where it is to be seen")
    outcomes = send(run, replace(config, track=track), all_rows=options.all)
    failed = [f"{title}: {reason(why)}" for title, why in outcomes.items() if isinstance(why, Exception)]
    for title, address in outcomes.items():
        if isinstance(address, str):
            print(f"{title}: {address}")
    if failed:
        raise UserError(f"{'; '.join(failed)}. What was sent stays; run the same command again for the rest")
    if not outcomes:
        print("nothing was sent: WANDB_MODE is disabled")
    return 0


if __name__ == "__main__":
    main()
