import numpy as np
import pytest

pytest.importorskip("faiss")

from jaxnets.search import kinds
from jaxnets.search.kinds import Plan, build, kind_for, nearest, outgrown, read, unit, write

RANDOM = np.random.default_rng(0)


def clustered(count: int, numbers: int = 16, clusters: int = 40) -> np.ndarray:
    centres = RANDOM.standard_normal((clusters, numbers))
    x = centres[RANDOM.integers(0, clusters, count)] + 0.5 * RANDOM.standard_normal((count, numbers))
    return unit(x.astype(np.float32))


_DRAWN = clustered(3050)
VECTORS, QUERIES = _DRAWN[:3000], _DRAWN[3000:]


@pytest.fixture(scope="module")
def exact():
    return np.argsort(-(QUERIES @ VECTORS.T), axis=1, kind="stable")[:, :10]


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_each_kind_finds_what_is_nearest_from_memory_and_mapped(kind, exact, tmp_path):
    index, plan = build(VECTORS, kind)
    assert (plan.kind, plan.built) == (kind, 3000)
    similarity, rows = nearest(index, plan, QUERIES, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows.tolist(), exact.tolist(), strict=True)])
    assert recall == 1 if kind == "flat" else recall >= 0.9
    np.testing.assert_allclose(similarity[:, 0], np.einsum("nf,nf->n", QUERIES, VECTORS[rows[:, 0]]), atol=1e-5)
    assert (np.diff(similarity, axis=1) <= 1e-6).all()
    write(index, tmp_path / "vectors.faiss")
    mapped = read(tmp_path / "vectors.faiss", mapped=True)
    np.testing.assert_array_equal(nearest(mapped, plan, QUERIES, 10)[1], rows)


def test_how_far_is_looked_is_as_far_as_is_needed():
    _, plan = build(VECTORS, "ivf")
    assert plan.recall >= 0.98
    assert plan.effort < 64
    assert f"{plan.effort} of" in plan.words()


def test_more_are_not_found_than_there_are():
    index, plan = build(VECTORS[:3], "flat")
    assert nearest(index, plan, QUERIES[:2], 10)[1].shape == (2, 3)


def test_the_kind_follows_from_the_size():
    assert kind_for(65_536, 256) == "flat"
    assert kind_for(65_537, 256) == "hnsw"
    assert kind_for(250_000, 256) == "hnsw"
    assert kind_for(1_000_000, 256) == "ivf"
    assert kind_for(1_000_000, 16) == "flat"


def test_an_index_is_built_anew_where_another_kind_or_more_lists_would_serve():
    flat, ivf = Plan("flat", 0, None, 100), Plan("ivf", 8, 0.99, 300_000)
    assert not outgrown(flat, 60_000, 0, 256)
    assert outgrown(flat, 70_000, 0, 256)
    assert not outgrown(ivf, 1_200_000, 0, 256)
    assert outgrown(ivf, 1_200_001, 0, 256)
    assert outgrown(flat, 1000, 101, 256)


def test_a_vector_of_zeros_is_like_no_other():
    np.testing.assert_array_equal(unit(np.zeros((1, 3), np.float32)), 0)


def test_what_is_no_index_is_said(tmp_path):
    (tmp_path / "x").write_bytes(b"nonsense" * 100)
    for mapped in (False, True):
        with pytest.raises(kinds.UserError, match="no index that FAISS can read"):
            read(tmp_path / "x", mapped=mapped)
