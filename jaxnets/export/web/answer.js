// jaxnets/answer.py: what the graph's outputs say of one image. `card` is what the ONNX file says of itself.

function activated(logits, activation) {
  if (activation === "sigmoid") return logits.map((x) => 1 / (1 + Math.exp(-x)));
  const largest = Math.max(...logits), powers = logits.map((x) => Math.exp(x - largest));
  const sum = powers.reduce((total, x) => total + x, 0);
  return powers.map((x) => x / sum);
}

// Returns why an image gets no label; null where it gets what its probabilities say. What is no number is beyond a bound.
function reasonOf(card, confidence, scores) {
  const bounds = card.refusal ?? {};
  for (const name of ["distance", "energy"]) {
    const bound = bounds[name] ?? null;
    if (bound !== null && name in scores && !(scores[name] <= bound)) {
      return `unlike the training images: ${name} ${scores[name].toPrecision(4)}, at most ${bound.toPrecision(4)}`;
    }
  }
  const least = card.thresholds === null ? (bounds.probability ?? null) : null; // of several labels, each has its own
  if (least !== null && !(confidence >= least)) {
    return `unsure: probability ${confidence.toPrecision(4)}, at least ${least.toPrecision(4)}`;
  }
  return null;
}

// Returns {labels, reason, ranked}: the labels that are said, why there are none, and all by [label, probability].
function answerOf(card, logits, scores) {
  const probabilities = activated(Array.from(logits), card.activation);
  const ranked = probabilities.map((probability, number) => ({ number, label: card.labels[number], probability }));
  ranked.sort((a, b) => b.probability - a.probability || a.number - b.number);
  const reason = reasonOf(card, ranked[0].probability, scores);
  let said = card.thresholds === null ? ranked.slice(0, 1) : ranked.filter((r) => r.probability > card.thresholds[r.number]);
  if (reason !== null) said = [];
  return { labels: said.map((r) => r.label), reason, ranked };
}
