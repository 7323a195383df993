"""Faults injected into the running nodes, and the table of what happened."""
