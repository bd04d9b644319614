"""What becomes of a gradient: clipping, decay, the optimizer's rule, the rate."""
