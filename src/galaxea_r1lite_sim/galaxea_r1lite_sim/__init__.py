"""A simulated Galaxea R1 Lite with a table and a towel (MuJoCo), on the robot's own topics.

Layers: scene (what there is, as MJCF), randomization (what varies with the seed), camera (images without a GPU),
simulation (physics, servos and the grasp rule), expert (a scripted fold), nodes (ROS 2).
"""
