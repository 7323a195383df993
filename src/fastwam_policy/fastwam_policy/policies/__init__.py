"""What a policy is, how one is loaded, and the policies that come with this package. No ROS."""
