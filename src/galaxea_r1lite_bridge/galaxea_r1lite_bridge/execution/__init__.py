"""How chunks become motion: plan, limits and the state machine. Pure numpy, no ROS, no clocks."""
