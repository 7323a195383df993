"""Reports of recorded sessions: summaries, figures, HTML pages. No ROS."""
