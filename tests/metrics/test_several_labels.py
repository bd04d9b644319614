import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    hamming_loss,
    precision_score,
    recall_score,
)

from jaxnets.evaluate.report import metrics_report
from jaxnets.metrics.metric import Outcome, Totals, figures_of, sums_of
from jaxnets.metrics.several_labels import F1_AT_HALF, SCORES
from jaxnets.metrics.table import EVALUATION, TRAINING, chief

RNG = np.random.default_rng(0)
COUNT, CLASSES = 200, 5
LABELS = (RNG.random((COUNT, CLASSES)) < [0.5, 0.3, 0.1, 0.02, 0.0]).astype(np.float32)  # nothing has the last class
LOGITS = (RNG.normal(size=(COUNT, CLASSES)) * 2 + 2 * LABELS - 1).astype(np.float32)
MASK = RNG.random(COUNT) < 0.8
LOSSES = np.ones(COUNT, np.float32)
SEEN = slice(0, 4)  # the classes that some images have


def outcome(batch: slice = slice(None), mask=MASK, labels=LABELS, logits=LOGITS, thresholds=None) -> Outcome:
    return Outcome(*(jnp.asarray(x[batch]) for x in (logits, labels, mask, LOSSES)), thresholds)


def totals(*batches: slice, mask=MASK):
    total = Totals()
    for batch in batches or (slice(None),):
        total.add(sums_of(EVALUATION, outcome(batch, mask)))
    return total.result()


def test_decisions_are_scored_as_scikit_learn_does():
    figures = figures_of(EVALUATION, totals())
    true, said = LABELS[MASK], LOGITS[MASK] > 0
    assert figures["accuracy"] == pytest.approx(accuracy_score(true, said))
    assert figures["label_accuracy"] == pytest.approx((true == said).mean())
    assert figures["hamming_loss"] == pytest.approx(hamming_loss(true, said))
    assert figures["micro_f1"] == pytest.approx(f1_score(true, said, average="micro"))
    assert figures["macro_f1"] == pytest.approx(f1_score(true, said, average="macro", zero_division=np.nan))


def test_average_precision_is_scikit_learn_s_of_scores_in_bins_and_near_that_of_the_scores():
    report = metrics_report(totals(), tuple("abcde"), split="test", model="m", step=1)
    binned = np.floor(LOGITS * 20).clip(-200, 199)
    exact = [average_precision_score(LABELS[MASK, i], LOGITS[MASK, i]) for i in range(4)]
    expected = [average_precision_score(LABELS[MASK, i], binned[MASK, i]) for i in range(4)]
    found = [report["per_class"][name]["average_precision"] for name in "abcd"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(found, exact, atol=0.02)
    assert report["mean_average_precision"] == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("digits", [0, 1, 7], ids=["many ties", "some ties", "none"])
def test_average_precision_of_all_scores_is_scikit_learn_s(digits):
    scores = np.round(3 * LOGITS, digits)  # beyond the bins, too
    total = Totals()
    for batch in (slice(0, 70), slice(70, COUNT)):
        total.add(sums_of((*EVALUATION, SCORES), outcome(batch, logits=scores)))
    report = metrics_report(total.result(), tuple("abcde"), split="test", model="m", step=1)
    expected = [average_precision_score(LABELS[MASK, i], scores[MASK, i]) for i in range(4)]
    np.testing.assert_allclose([report["per_class"][n]["average_precision"] for n in "abcd"], expected, rtol=1e-12)
    assert report["per_class"]["e"]["average_precision"] is None
    assert report["mean_average_precision"] == pytest.approx(np.mean(expected), rel=1e-12)


def test_decisions_at_thresholds_are_scored_beside_those_at_one_half():
    thresholds = (0.7, 0.2, 0.05, 0.9, 0.5)
    total = Totals()
    total.add(sums_of((*EVALUATION, F1_AT_HALF), outcome(thresholds=thresholds)))
    report = metrics_report(total.result(), tuple("abcde"), split="s", model="m", step=1, thresholds=thresholds)
    true, said, half = LABELS[MASK], (1 / (1 + np.exp(-LOGITS)) > thresholds)[MASK], LOGITS[MASK] > 0
    for suffix, answer in (("", said), ("_at_half", half)):
        assert report[f"macro_f1{suffix}"] == pytest.approx(
            f1_score(true, answer, average="macro", zero_division=np.nan)
        )
        assert report[f"micro_f1{suffix}"] == pytest.approx(f1_score(true, answer, average="micro"))
    assert report["accuracy"] == pytest.approx(accuracy_score(true, said))
    assert report["hamming_loss"] == pytest.approx(hamming_loss(true, said))
    assert [row["threshold"] for row in report["per_class"].values()] == list(thresholds)


def test_a_report_shows_each_class_and_what_nothing_has_as_nothing():
    rows = metrics_report(totals(), tuple("abcde"), split="test", model="m", step=1)["per_class"]
    true, said = LABELS[MASK], LOGITS[MASK] > 0
    precision, recall = (
        score(true[:, SEEN], said[:, SEEN], average=None, zero_division=0) for score in (precision_score, recall_score)
    )
    for i, name in enumerate("abcd"):
        assert rows[name]["count"] == true[:, i].sum()
        assert rows[name]["accuracy"] == pytest.approx((true[:, i] == said[:, i]).mean())
        assert rows[name]["precision"] == pytest.approx(precision[i])
        assert rows[name]["recall"] == pytest.approx(recall[i])
    assert (rows["e"]["count"], rows["e"]["recall"], rows["e"]["average_precision"]) == (0, None, None)


def test_the_sums_of_batches_with_several_labels_are_those_of_the_whole():
    parts, whole = totals(slice(0, 70), slice(70, 71), slice(71, COUNT)), totals()
    assert parts.keys() == whole.keys()
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-6)


def test_what_is_masked_has_no_labels_that_count():
    figures = figures_of(EVALUATION, totals(mask=np.zeros(COUNT, bool)))
    assert all(np.isnan(figures[name]) for name in ("macro_f1", "micro_f1", "mean_average_precision", "label_accuracy"))


def test_metrics_of_a_single_label_have_no_figures_of_several_and_the_other_way_round():
    several = figures_of(EVALUATION, totals())
    single = sums_of(EVALUATION, outcome(labels=LABELS.argmax(1).astype(np.int32)))
    assert not single.keys() & {"label_count", "true_positives", "positive_scores"}
    assert not several.keys() & {"top5", "balanced_accuracy"}
    assert chief(several) == "mean_average_precision"
    assert chief(figures_of(EVALUATION, {name: np.asarray(x) for name, x in single.items()})) == "accuracy"


def test_the_sums_of_a_training_step_are_single_numbers():
    sums = sums_of(TRAINING, outcome())
    assert {np.shape(x) for x in sums.values()} == {()}
    assert figures_of(TRAINING, {k: np.asarray(x) for k, x in sums.items()})["label_accuracy"] == pytest.approx(
        (LABELS[MASK] == (LOGITS[MASK] > 0)).mean()
    )
