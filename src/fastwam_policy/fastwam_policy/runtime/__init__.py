"""Observation buffer and inference loop. No ROS; time is an argument."""
