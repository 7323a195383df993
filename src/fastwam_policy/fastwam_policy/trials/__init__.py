"""Repeated trials of policies, on the robot or in the simulator, with their report."""
