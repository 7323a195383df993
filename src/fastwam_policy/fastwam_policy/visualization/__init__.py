"""What people look at: paths, markers, viewers."""
