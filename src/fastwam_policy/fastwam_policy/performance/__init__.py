"""Benchmarks of speed: inference, execution, the control loop."""
