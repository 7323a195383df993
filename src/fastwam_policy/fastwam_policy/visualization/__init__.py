"""Visualization: paths, markers, viewers."""
