"""Data and training. No ROS."""
