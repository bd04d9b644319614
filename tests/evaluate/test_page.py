"""The page: self-contained, whatever classes are called and however many there are."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxnets.config import resolve
from jaxnets.data.examples import Examples
from jaxnets.data.sources import ArraySplit
from jaxnets.evaluate.page import classes, confusions, cost, curves, mistakes
from jaxnets.evaluate.page.confusions import draw
from jaxnets.evaluate.page.images import Images
from jaxnets.evaluate.page.report import report
from jaxnets.evaluate.page.section import Section
from jaxnets.evaluate.report import metrics_report
from jaxnets.evaluate.run import Evaluation, merged
from jaxnets.evaluate.several_labels import judge_several
from jaxnets.evaluate.single_label import judge
from jaxnets.evaluate.sums import sums_over
from jaxnets.metrics.table import EVALUATION
from jaxnets.recipe.losses.cross_entropy import SigmoidCrossEntropy, SoftmaxCrossEntropy
from jaxnets.run.directory import ModelCard, RunDirectory
from tests import tiny
from tests.evaluate import made

ODD = '<b>a & "b"</b> $x_1$ \'é日'
SEEN = replace(tiny.SEEN, height=16, width=16, crop_fraction=1.0)


def evaluation(predictions, folder, **changed) -> Evaluation:
    """Returns an evaluation whose images are noise and whose run is empty."""
    n, several = len(predictions), predictions.several_labels
    random = np.random.default_rng(0)
    split = ArraySplit(random.integers(0, 256, (n, 16, 16, 3), np.uint8), np.zeros(n, np.int32), "made")
    names = predictions.class_names
    asked = replace(tiny.classifier(classes=len(names), preprocess=SEEN, engine_name="jax"), labels=names)
    judged = judge_several(predictions) if several else judge(predictions)
    loss = SigmoidCrossEntropy() if several else SoftmaxCrossEntropy()
    total = sums_over(predictions, loss, EVALUATION)
    metrics = merged(metrics_report(total, names, split="test", model="tiny", step=3), judged)
    fields = {
        "run": RunDirectory(folder),
        "config": resolve({}),
        "card": ModelCard(name="tiny", fields={}, class_names=names, preprocess=SEEN, data={}),
        "asked": asked,
        "classifier": None,
        "examples": Examples(split, np.arange(n), SEEN, skip_corrupt=False),
        "predictions": predictions,
        "judged": judged,
        "temperature": 1.0,
        "metrics": {**metrics, "source": "made", "notes": [ODD]},
    }
    return Evaluation(**{**fields, **changed})


class Page(HTMLParser):
    """What a page asks for, and whether its elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.asked, self.anchors, self.links, self.open, self.text = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.asked += [found[key] for key in ("src", "srcset", "data") if key in found]
        if tag in ("link", "script", "iframe"):
            self.asked.append(tag)
        if tag == "a":
            self.links.append(found["href"])
        if tag == "section":
            self.anchors.append(f"#{found['id']}")
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in ("meta", "img", "br"):
            self.open.pop()

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("case", ["two", "several", "one-class-only", "one-image"])
def test_a_page_asks_for_nothing_and_its_links_lead_somewhere(case, tmp_path):
    p = {
        "two": made.random(30, 2),
        "several": made.random(40, 4, several=True),
        "one-class-only": made.predictions([1, 1, 1], [[0, 1, 2], [1, 2, 0], [0, 1, 0]]),
        "one-image": made.predictions([0], [[0.0, 1, 2]]),
    }[case]
    names = (ODD, *p.class_names[1:])
    p = replace(p, class_names=names, paths=tuple(f"{ODD}{i}" for i in range(len(p))))
    found = report(evaluation(p, tmp_path), None, [Section("Mine", "<p>more</p>", "mine")])
    page = Page(found.html)
    assert not page.open
    assert all(address.startswith("data:") for address in page.asked), page.asked
    assert "#mine" in page.anchors
    assert page.links == page.anchors
    assert not re.search(r"url\((?!#)|@import", found.html)
    assert "<b>a &" not in found.html
    assert ODD in page.text
    assert all(content.startswith(b"\x89PNG") for content in found.files.values())
    assert {"classes.png", "reliability.png", "coverage.png"} <= set(found.files)
    assert ("all labels right" in page.text) == (case == "several")
    assert ("--precision" in page.text) == (case != "several")  # which is refused there


def test_of_many_classes_those_that_no_image_has_or_is_said_to_have_are_left_out(tmp_path):
    said = np.zeros((3, 60), np.float32)
    said[[0, 1, 2], [5, 7, 9]] = 1  # of images of 5, 7 and 8
    p = made.predictions([5, 7, 8], said.tolist())
    text = Page(classes.classes(evaluation(p, tmp_path)).html).text
    assert "Left out are 56 classes" in text
    assert all(name in text for name in (p.class_names[i] for i in (5, 7, 8, 9)))
    p = made.predictions([5, 7, 8], said[:, :10].tolist())
    assert "Left out" not in Page(classes.classes(evaluation(p, tmp_path)).html).text


def test_of_a_thousand_classes_the_page_stays_small(tmp_path):
    p = made.random(1500, 1000)
    made_up = evaluation(p, tmp_path)
    html = confusions.confusions(made_up, Images(p, made_up.examples)).html
    assert len(html) < 500_000
    assert "More pairs" in html


@pytest.mark.parametrize(("classes", "named", "numbered"), [(2, 2, 4), (10, 10, 100), (40, 40, 0), (300, 0, 0)])
def test_a_matrix_has_numbers_and_names_where_there_is_room(classes, named, numbered):
    matrix = np.ones((classes, classes), int) + 5 * np.eye(classes, dtype=int)
    axes = draw(matrix, tuple(f"class {i}" for i in range(classes)), np.arange(classes)).axes[0]
    assert len(axes.get_yticklabels()) == named
    assert len(axes.texts) == numbered


def test_a_single_mistake_among_many_classes_is_seen():
    matrix = np.diag(np.full(1000, 50))
    matrix[3, 700] = 1
    seen = draw(matrix, ("",) * 1000, np.arange(1000)).axes[0].images[0].get_array()
    assert seen.shape[0] <= 400
    assert seen[3 // 3, 700 // 3] > 0.1


def test_the_most_confident_mistakes_come_first_each_with_its_reasons(tmp_path):
    logits = np.zeros((5, 5))
    logits[np.arange(5), [1, 1, 2, 3, 4]] = [3, 1, 9, 2, 5]
    p = made.predictions([0, 1, 0, 1, 4], logits)
    made_up = evaluation(p, tmp_path)
    assert mistakes.worst(made_up) == [(2, 2, 0), (0, 1, 0), (3, 3, 1)]
    explained = replace(made_up, classifier=made_up.asked)
    html = mistakes.mistakes(explained, Images(p, explained.examples)).html
    assert html.count("<img") == 9
    assert "for class 2: <b>" in html


def test_of_several_labels_the_worst_question_of_each_image_counts(tmp_path):
    p = made.predictions([[1, 0], [0, 1], [1, 1]], [[-2.0, 4], [-1, 1], [-3, 1]])
    assert mistakes.worst(evaluation(p, tmp_path)) == [(0, 1, 1), (2, 0, 0)]


def test_learning_curves_are_those_of_the_run(tmp_path):
    rows = [{"step": step, "train/loss": 1 / step, "eval/accuracy": 0.5, "eval/split": "test"} for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 4, "tra')
    found = curves.learning(evaluation(made.random(20, 3), tmp_path))
    assert "learning.png" in found.files
    assert all(title in found.html for title in ("Loss", "Accuracy"))


def test_the_cost_is_measured(tmp_path):
    made_up = evaluation(made.random(4, 5), tmp_path)
    found = cost.measure(replace(made_up, classifier=made_up.asked))
    assert found.parameters == cost.size(made_up.asked.model, 16, 16, 3).parameters
    assert found.latency_ms > 0
    assert found.images_per_second > 0
    assert "multiply-adds" in cost.cost(found).html
