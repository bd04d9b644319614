"""Evaluation of a finished or running run, and its report."""
