"""What recorded sessions say: summaries, figures, HTML pages. No ROS."""
