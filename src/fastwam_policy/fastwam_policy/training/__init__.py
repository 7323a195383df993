"""Training. No ROS."""
