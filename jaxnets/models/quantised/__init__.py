"""Networks that compute as they would in 8 bits, so that they can learn to: quantisation-aware training."""
