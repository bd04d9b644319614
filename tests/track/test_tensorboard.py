"""TensorBoard, which the run directory holds."""

import io

from PIL import Image

from jaxnets.track.report import show_confusion


def test_the_confusion_matrix_of_the_newest_report_is_among_its_images(tmp_path):
    (tmp_path / "report").mkdir()
    show_confusion(tmp_path / "tensorboard", tmp_path / "report", 4)
    assert not (tmp_path / "tensorboard").exists()  # of several labels there is none
    for side in (8, 9):
        png = io.BytesIO()
        Image.new("RGB", (side, side)).save(png, "PNG")
        (tmp_path / "report" / "confusion.png").write_bytes(png.getvalue())
        show_confusion(tmp_path / "tensorboard", tmp_path / "report", 4)
        (events,) = (tmp_path / "tensorboard" / "report").iterdir()
        content = events.read_bytes()
        assert b"confusion" in content
        assert content.count(b"\x89PNG") == 1
