"""What a training is: augmentation, mixing, loss, optimizer, schedule and averaging, each a pure function."""
