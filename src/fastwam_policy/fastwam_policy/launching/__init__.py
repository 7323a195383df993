"""Which processes a mode has, and how they are started and supervised."""
