"""Fast-WAM as a policy: bundles, pre- and post-processing, the engine."""
