"""What runs in another simulator's environment, and imports nothing of this project: see `benchmarks/simulator.py`."""
