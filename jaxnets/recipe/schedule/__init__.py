"""The learning rate, and where it is scheduled the momentum, as functions of the step."""
