"""When a model may be believed: calibrated probabilities, bounds below which it does not answer, sets, and costs.

Everything here is arithmetic on logits, probabilities and feature vectors in NumPy. What is fitted is fitted on images
that the model was not trained on, travels in model.json, and is applied wherever the model answers.
"""
