"""Which of two models answers better, by the records of both."""
