"""Policy bundles: load, check, pre- and post-process, infer."""
