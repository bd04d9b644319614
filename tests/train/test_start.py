import shutil

import jax
import numpy as np
import pytest

from jaxnets.errors import UserError
from jaxnets.run.checkpoints import read_variables
from jaxnets.run.directory import RunDirectory
from jaxnets.train.build import build
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from jaxnets.train.start import open_start
from tests.train.runs import short

STILL = {"learning_rate": 1e-12}  # training that changes nothing to speak of


@pytest.fixture(scope="module")
def finished(tmp_path_factory, one_device):
    workdir = tmp_path_factory.mktemp("first") / "digits"
    train(short(), workdir, Display(), one_device)
    return workdir


def params_of(workdir, step=4):
    return read_variables(workdir / "checkpoints", step, "raw")["params"]


def assert_close(a, b):
    assert jax.tree.all(jax.tree.map(lambda x, y: np.allclose(x, y, atol=1e-6), a, b))


def test_a_run_starts_from_the_weights_of_another(finished, one_device, tmp_path):
    config = short(model={"pretrained": str(finished)}, optimizer=STILL, seed=1)
    train(config, tmp_path / "second", Display(), one_device)
    assert_close(params_of(tmp_path / "second"), params_of(finished))


def test_a_run_goes_on_when_the_weights_that_it_started_from_are_gone(finished, one_device, tmp_path):
    source = shutil.copytree(finished, tmp_path / "source")
    changed = {"model": {"pretrained": str(source)}, "optimizer": STILL}
    train(short(**changed), tmp_path / "second", Display(), one_device)
    shutil.rmtree(source)
    train(short(**changed, steps=6), tmp_path / "second", Display(), one_device)
    assert_close(params_of(tmp_path / "second", 6), params_of(finished))


def test_the_data_is_seen_as_the_weights_saw_theirs(finished, one_device, tmp_path):
    config = short(model={"pretrained": str(finished)}, data={"validation": 0.5})
    train(config, tmp_path / "second", Display(), one_device)
    assert RunDirectory(tmp_path / "second").read_model().preprocess == RunDirectory(finished).read_model().preprocess


def test_weights_of_another_model_are_refused(finished):
    with pytest.raises(UserError, match=r"holds a resnet8_cifar, but config\.model\.name is resnet32_cifar"):
        open_start(short(model={"name": "resnet32_cifar", "pretrained": str(finished)}))


def test_weights_of_a_model_that_is_built_otherwise_are_refused(finished, one_device, tmp_path):
    changed = {"model": {"pretrained": str(finished), "shortcut": "B"}}
    with pytest.raises(UserError, match=r"the model has .*shortcut.* and the other has not"):
        train(short(**changed), tmp_path / "run", Display(), one_device)


def test_the_groups_of_batch_norm_are_the_config_s_and_not_those_of_the_weights():
    from jaxnets.data.dataset import open_dataset

    config = short()
    built = build(config, open_dataset(config), {"norm_group_size": 8, "remat_stages": 2})
    assert built.model.norm_group_size is None
    assert built.model.remat_stages == 0


def test_weights_that_are_nowhere_are_refused_before_anything_is_written(one_device, tmp_path):
    with pytest.raises(UserError, match=r"there is no model 'nowhere\.pth'"):
        train(short(model={"pretrained": "nowhere.pth"}), tmp_path / "run", Display(), one_device)
    assert not (tmp_path / "run").exists()


def test_the_config_goes_before_what_the_weights_say(finished):
    from jaxnets.data.dataset import open_dataset

    config = short(model={"pretrained": str(finished)}, batch_norm={"epsilon": 0.5})
    built = build(config, open_dataset(config), {"norm_epsilon": 0.25, "norm_decay": 0.5})
    assert built.model.norm_epsilon == 0.5
    assert built.model.norm_decay == 0.5


def test_a_field_that_the_model_has_not_is_refused_by_its_key(one_device, tmp_path):
    with pytest.raises(UserError, match=r"config\.model\.shortcut is 'A', but efficientnet_lite0 has no such field"):
        train(short(model={"name": "efficientnet_lite0", "shortcut": "A"}), tmp_path / "run", Display(), one_device)
