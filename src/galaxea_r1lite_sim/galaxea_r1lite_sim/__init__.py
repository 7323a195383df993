"""A simulated Galaxea R1 Lite with a table and a towel (MuJoCo), on the robot's own topics.

Layers: shapes (the URDF's boxes and cylinders), scene (what there is, as MJCF), randomization (what varies with the
seed), camera (images without a GPU), contacts (what of the robot touched what), simulation (physics, servos and the
grasp rule), expert (a scripted fold), nodes (ROS 2).
"""
