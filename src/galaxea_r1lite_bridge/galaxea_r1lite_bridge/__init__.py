"""Bridge between action chunks and the Galaxea R1 Lite.

Layers, imports point downward only: ``nodes`` (the only place with rclpy), ``execution`` (plan, limits, state
machine), ``robot`` (names, units, limits, kinematics). Time is an argument everywhere below ``nodes``.
"""
