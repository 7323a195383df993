"""Episodes in the simulator: evaluation, data collection, comparison of variants."""
