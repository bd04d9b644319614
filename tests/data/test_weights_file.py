import json

import pytest

from jaxnets.data.weights_file import read_weights
from jaxnets.errors import UserError

NAMES = ("cat", "big, old dog", "café")


@pytest.mark.parametrize(
    "text",
    [
        'cat,1\n"big, old dog",2.5\ncafé,4e-1\n',
        '\ufeffclass,weight\r\ncafé,0.4\r\n\r\n"big, old dog", 2.5\r\ncat,1',
        "cat;1\nbig, old dog;2.5\ncafé;.4",
        "cat\t1\n big, old dog \t2.5\ncafe\u0301\t0.4",
        json.dumps({"café": 0.4, "cat": 1, "big, old dog": 2.5}),
        json.dumps({"café": "0.4", "cat": 1, "big, old dog": 2.5}, ensure_ascii=False),
    ],
)
def test_each_class_gets_its_weight_however_the_file_is_written(tmp_path, text):
    path = tmp_path / "weights"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_weights(str(path), NAMES) == [1.0, 2.5, 0.4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,1\nb,x", "the weight of line 2 of .* must be a number above 0, found 'x'"),
        ("a,1\nb,0", "line 2 .* above 0, found '0'"),
        ("a,1\nb,nan", "line 2 .* above 0, found 'nan'"),
        ("class,weight\na,1\n\nb,inf", "line 4 .* above 0, found 'inf'"),
        ("a,1\nbb,2", r"a weight to 'bb' \(did you mean 'b'\?\), which the data has no class of.*'a', 'b'"),
        ("a,1", "gives no weight to 'b'"),
        ("a,1\na,2\nb,1", "the class 'a' two weights"),
        ("a,1\nb", "lines of class,weight, found 'b' in line 2"),
        ("\n", "is empty"),
        ('{"a": 1, "b": true}', "the weight of 'b' in .* must be a number above 0, found 'True'"),
        ('{"a": 1, "a": 2, "b": 1}', "the class 'a' two weights"),
        ('{"a": 1', "is no JSON"),
    ],
)
def test_what_gives_no_weights_is_refused(tmp_path, text, expected):
    (tmp_path / "weights").write_text(text)
    with pytest.raises(UserError, match=expected):
        read_weights(str(tmp_path / "weights"), ("a", "b"))


def test_a_file_that_is_not_there_or_is_a_list_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*balance \(did you mean 'balanced'\?\)"):
        read_weights(str(tmp_path / "balance"), ("a", "b"))
    (tmp_path / "w.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="must hold an object with a weight for each class"):
        read_weights(str(tmp_path / "w.json"), ("a", "b"))
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(str(tmp_path), ("a", "b"))
