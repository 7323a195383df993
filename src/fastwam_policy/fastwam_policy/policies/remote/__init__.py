"""A policy that runs in another process or on another machine."""
