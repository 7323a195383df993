"""Fast-WAM as a ROS 2 policy for the Galaxea R1 Lite.

Layers, imports point downward only: ``nodes`` (the only place with rclpy) > ``runtime``, ``evaluation`` > ``policy`` >
``model`` (torch only). The robot's description comes from ``galaxea_r1lite_bridge.robot``.
"""
