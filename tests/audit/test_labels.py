import numpy as np
import pytest

from jaxnets.audit.labels import suspect


def clusters(classes, each, spread, seed=0):
    """Vectors of length 1 around one direction for each class, and their labels."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(classes, dtype=np.int32), each)
    vectors = np.eye(classes, 24)[label] + rng.normal(0, spread, (len(label), 24))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16), label


@pytest.mark.parametrize("each", [15, 60])
def test_labels_that_were_changed_are_suspected_and_no_others(each):
    vectors, label = clusters(4, each, spread=0.12)
    wrong = np.arange(0, len(label), 11)
    given = label.copy()
    given[wrong] = (given[wrong] + 1) % 4
    found = suspect(vectors, given, 4)
    assert sorted(found.example.tolist()) == wrong.tolist()
    assert (found.other == label[found.example]).all()


def test_where_vectors_say_nothing_of_the_classes_no_label_is_suspected():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 24)).astype(np.float16)
    found = suspect(vectors, rng.integers(0, 4, 200).astype(np.int32), 4)
    assert len(found.example) == 0
    assert found.accuracy < 0.5
