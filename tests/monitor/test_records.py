"""The format of records, and a folder of them: what is read, what is left out, and what is refused."""

import numpy as np
import pytest

from jaxnets.errors import UserError
from jaxnets.monitor.log import cut, find_log, parse_length, parse_time, read_log
from jaxnets.monitor.records import projection, read_file
from tests.monitor.made import about, records, rows, write


def test_what_is_written_is_read(tmp_path):
    file = write(tmp_path, rows(5))
    assert file.read_bytes().startswith(b"jaxnets-records 1 {")
    found = read_file(file)
    assert found.about == about()
    np.testing.assert_array_equal(found.rows, rows(5))


def test_a_file_that_is_cut_short_is_read_up_to_there(tmp_path):
    file = write(tmp_path, rows(5))
    file.write_bytes(file.read_bytes()[:-7])
    found = read_file(file)
    np.testing.assert_array_equal(found.rows, rows(5)[:4])
    assert found.notes == ("a.records is cut short in its last record, and read up to there (4 records)",)


def test_damaged_records_are_left_out_and_counted(tmp_path):
    broken = rows(5)
    broken["label"][1], broken["confidence"][2], broken["time"][3] = 3, 7.0, np.nan
    found = read_file(write(tmp_path, broken))
    assert found.rows["id"].tolist() == [1, 5]
    assert found.notes == ("a.records has 3 damaged records, which are left out",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "begins with nothing"),
        (b"id,time\n1,2\n", "begins with 'id,time"),
        (b'{"format": 1}\n', "is no file of records"),
        (b"\x93NUMPY\x01\x00", "is no file of records"),
        (b"jaxnets-records\n", "is no file of records"),
        (b"jaxnets-records one {}\n", "is no file of records"),
        (b"jaxnets-records 2 {}\n", "records of format 2, and this version of jaxnets reads format 1"),
        (b"jaxnets-records 1 {}\n", "does not say of which model"),
        (b"jaxnets-records 1 []\n", "does not say of which model"),
        (b"jaxnets-records 1 {\n", "does not say of which model"),
        (b'jaxnets-records 1 {"mod', "is cut short before its first record"),
    ],
)
def test_what_is_no_file_of_records(tmp_path, content, says):
    file = tmp_path / "a.records"
    file.write_bytes(content)
    with pytest.raises(UserError, match=says):
        read_file(file)


def test_files_are_read_in_the_order_of_their_times(tmp_path):
    write(tmp_path, rows(6)[3:], name="a")
    write(tmp_path, rows(6)[:3], name="b")
    assert read_log(tmp_path).rows["id"].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_file_of_another_format_hides_no_others(tmp_path):
    write(tmp_path, rows(6))
    (tmp_path / "b.records").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"b\.records is no file of records"):
        read_log(tmp_path)


def test_a_file_without_a_record_is_left_out_with_a_note(tmp_path):
    write(tmp_path, rows(6))
    (tmp_path / "b.records").write_bytes(about().to_line()[:-9])
    found = read_log(tmp_path)
    assert len(found) == 6
    assert found.notes == ("b.records is cut short before its first record, and left out",)


def test_records_of_other_weights_are_left_out_and_counted(tmp_path):
    write(tmp_path, rows(6), name="a")
    write(tmp_path, rows(4), about(fingerprint="1" * 16, step=2), name="b")
    found = read_log(tmp_path, about())
    assert len(found) == 6
    assert found.notes == ("4 records of other weights, or of another calibration, are left out",)
    assert len(read_log(tmp_path)) == 4  # without a reference the newest model is meant


def test_a_log_of_another_model_is_refused(tmp_path):
    write(tmp_path, rows(6))
    with pytest.raises(UserError, match=r"are of none at step 1, 3 classes \(0+\), and the reference is of other"):
        read_log(tmp_path, about(fingerprint="1" * 16, architecture="other"))


def test_a_log_is_found_by_its_model(tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        find_log(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no records in --log"):
        find_log(tmp_path)
    write(tmp_path / "it", rows(1))
    assert find_log(tmp_path) == find_log(tmp_path / "it") == find_log(tmp_path, "it") == tmp_path / "it"
    write(tmp_path / "other", rows(1))
    with pytest.raises(UserError, match=r"several models \(it, other\): say with --name which"):
        find_log(tmp_path)
    with pytest.raises(UserError, match=r"no records of 'othr' \(did you mean 'other'\?\)"):
        find_log(tmp_path, "othr")
    assert find_log(tmp_path, "other") == tmp_path / "other"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("1.5h", 5400), ("7d", 604800), ("2W ", 1209600)]
)
def test_lengths(text, seconds):
    assert parse_length(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "1y", "-1h", "0h", "1h30m", "inf", "1e3s"])
def test_what_is_no_length(text):
    with pytest.raises(UserError, match="--window must be a length like 90s"):
        parse_length(text)


def test_times():
    assert parse_time("2023-11-14T22:13:20", "--since") == 1.7e9
    assert parse_time("2023-11-14T22:13:20Z", "--since") == 1.7e9
    assert parse_time("2023-11-14 23:13:20+01:00", "--since") == 1.7e9
    assert parse_time("1700000000", "--since") == 1.7e9
    for text in ("yesterday", "2023-13-01", "", "14:00"):
        with pytest.raises(UserError, match="--until must be a time like"):
            parse_time(text, "--until")


def test_a_window_is_the_latest_records_before_its_end():
    found = records(100)  # one a second
    assert cut(found, 10, None, None).rows["id"].tolist() == list(range(91, 101))
    assert cut(found, 10, None, 1.7e9 + 50).rows["id"].tolist() == list(range(41, 51))
    assert cut(found, None, 1.7e9 + 95, None).rows["id"].tolist() == list(range(96, 101))
    assert cut(found, 10, 1.7e9 + 95, None).rows["id"].tolist() == list(range(96, 101))
    assert len(cut(found, 10, None, 1.0)) == len(cut(found, None, 2e9, None)) == len(cut(found, None, 5.0, 1.0)) == 0


def test_the_projection_is_the_same_wherever_it_is_drawn_and_keeps_distances():
    matrix = projection(1000, 0)
    np.testing.assert_allclose(matrix[0, :3], [0.03143256, -0.03302621, 0.16010566], rtol=1e-5)
    x = np.random.default_rng(0).normal(size=(500, 1000)).astype(np.float32)
    ratios = np.linalg.norm(x @ matrix, axis=1) / np.linalg.norm(x, axis=1)
    assert abs(ratios.mean() - 1) < 0.05
