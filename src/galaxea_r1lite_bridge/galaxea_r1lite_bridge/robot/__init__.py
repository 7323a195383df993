"""What the robot is: its configuration file, joint order, limits and forward kinematics."""
