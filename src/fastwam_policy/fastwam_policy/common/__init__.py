"""Files, worker processes, progress bars, statistics: nothing about robots or policies."""
