"""The demo's modules lie beside its app, not in the package; and a run to show."""

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxnets import create_model
from jaxnets.preprocess import Preprocess
from jaxnets.run.checkpoints import Progress
from jaxnets.run.directory import ModelCard, RunDirectory
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState
from tests.tiny import live
from tests.train.runs import SMALL, short

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT / "demo"), str(ROOT / "launch")]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
QUIET = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --use-fake-device-for-media-stream "
    "--use-fake-ui-for-media-stream"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium, whose camera is a made one."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*QUIET.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


def wait_for(seen: Callable[[], Any], seconds: float = 120) -> Any:
    from selenium.common.exceptions import StaleElementReferenceException

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := seen():
                return found
        except StaleElementReferenceException:  # drawn anew meanwhile
            pass
        time.sleep(0.05)
    raise AssertionError(f"not seen within {seconds} s")


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory) -> Path:
    """A run directory as a run on the digits leaves it, of weights that were drawn and never trained."""
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "few_digits")
    preprocess = Preprocess(height=8, width=8, channels=1, mean=(0.3,), std=(0.4,))
    fields = {"num_classes": 10, "dtype": "float32"}
    model = create_model(SMALL, preprocess=preprocess, num_classes=10, dtype=jnp.float32)
    run.create()
    run.write(
        short(),
        ModelCard(
            name=SMALL,
            fields=fields,
            class_names=tuple("0123456789"),
            preprocess=preprocess,
            data={"train": 1294, "test": 360},
        ),
    )
    saver = Checkpointer(run.checkpoints)
    variables = jax.tree.map(jnp.asarray, live(model, preprocess))
    state = TrainState(
        step=jnp.int32(4),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state={"momentum": jnp.zeros(3)},
        ema=None,
    )
    saver.save(state, Progress(step=4))
    saver.close()
    rows = [
        {"step": 2, "train/loss": 2.5, "train/accuracy": 0.125, "train/learning_rate": 0.1, "time": 1.0},
        {"step": 4, "train/loss": 2.0, "train/accuracy": 0.25, "train/learning_rate": 0.0, "time": 2.0},
        {"step": 4, "eval/split": "validation", "eval/loss": 2.25, "eval/accuracy": 0.2, "eval/count": 143},
    ]
    run.metrics.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return run.path
