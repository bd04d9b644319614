"""Monitoring: the records that a service writes of its answers, and whether they drift from a reference."""
