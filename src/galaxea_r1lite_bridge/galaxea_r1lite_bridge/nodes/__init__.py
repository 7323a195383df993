"""ROS 2 nodes and what only they need."""
