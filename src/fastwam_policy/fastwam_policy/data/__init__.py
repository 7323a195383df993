"""Recordings and datasets: reading, writing, conversion. No ROS."""
