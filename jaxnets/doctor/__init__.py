"""What JAX sees on this machine, and what is wrong with it for a training run."""
