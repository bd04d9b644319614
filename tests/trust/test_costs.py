"""A cost matrix decides by what is expected, and is refused where it is not of the model's classes."""

import numpy as np
import pytest

from jaxnets.errors import UserError
from jaxnets.trust.costs import read_costs

NAMES = ("cat", "dog", "owl")
GOOD = "true,cat,dog,owl\ncat,0,1,10\ndog,2,0,5\nowl,1,1,0\n"


def read(tmp_path, text: str, names=NAMES):
    file = tmp_path / "costs.csv"
    file.write_text(text, encoding="utf-8")
    return read_costs(file, names)


def test_the_decision_is_that_of_least_expected_cost(tmp_path):
    costs = read(tmp_path, GOOD)
    p = np.random.default_rng(0).dirichlet(np.ones(3), 100).astype(np.float32)
    by_hand = [min(range(3), key=lambda j: sum(row[i] * costs.matrix[i, j] for i in range(3))) for row in p]
    assert costs.decide(p).tolist() == by_hand
    assert costs.paid(np.array([0, 1]), np.array([2, 0])).tolist() == [10, 2]


def test_no_answer_may_be_a_decision_with_a_price(tmp_path):
    costs = read(tmp_path, ",cat,dog,none of these\ncat,0,1,0.3\ndog,1,0,0.3\n", NAMES[:2])
    assert costs.refuses
    # Chow's rule: refuse where the larger probability is below 1 − 0.3.
    p = np.array([[0.75, 0.25], [0.65, 0.35], [0.45, 0.55]])
    assert [costs.decisions[i] for i in costs.decide(p)] == ["cat", "none of these", "none of these"]


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        "\ufeff" + GOOD.replace("\n", "\r\n"),
        "true,owl,cat,dog\nowl,0,1,1\n\ncat, 10 ,0,1\ndog,5,2,0\n",
        GOOD.replace("true", "").replace("10", '"1e1"'),
    ],
    ids=["semicolons", "tabs", "Excel", "another order", "quotes"],
)
def test_other_ways_to_write_it_are_read_alike(tmp_path, text):
    np.testing.assert_array_equal(read(tmp_path, text).matrix, [[0, 1, 10], [2, 0, 5], [1, 1, 0]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no cost matrix"),
        ("true\ncat\n", "holds no cost matrix"),
        ("true,cat,dog\ncat,0,1\ndog,1,0\n", "has 2 rows and none for owl"),
        (GOOD.replace(",owl\n", "\n").replace(",10", "").replace(",5", "").replace("1,0\n", "1\n"), "none for owl"),
        (GOOD.replace("owl", "owls"), r"'owls', which is no class of the model \(did you mean 'owl'\?\)"),
        (GOOD.replace("dog,2,0,5", "dog,2,0"), "has 2 costs in the row of 'dog', expected 3"),
        (GOOD.replace("10", "ten"), "has 'ten' as the cost of saying 'owl' where 'cat' is true"),
        (GOOD.replace("10", "nan"), "has 'nan' as the cost"),
        (GOOD + "cat,0,1,10\n", "has the row 'cat' twice"),
    ],
)
def test_what_is_no_cost_matrix_of_these_classes_is_refused(tmp_path, text, expected):
    with pytest.raises(UserError, match=expected):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read .*--costs"):
        read_costs(tmp_path / "none.csv", NAMES)
