"""What `python -m jaxnets.explain` refuses before it opens a model."""

import sys

import pytest

from jaxnets.explain.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "x/model.onnx", "cat.jpg"], "x/model.onnx is an ONNX graph, which has no gradients and no stages"),
        (["--model", "m", "cat.jpg", "--method", "gradcan"], "there is no method 'gradcan' (did you mean 'gradcam'?)"),
        (["--model", "m", "cat.jpg", "--method", "occlusion", "--stage", "stage1"], "--stage stage1 is for gradcam"),
        (["--model", "m"], "there is nothing to explain: give images"),
        (["--model", "m", "cat.jpg", "--nearest", "0"], "--nearest must be at least 1, found 0"),
    ],
)
def test_what_cannot_be_is_one_message(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["explain", *arguments, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
