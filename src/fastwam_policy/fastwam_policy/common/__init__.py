"""Files, processes of work, progress bars, statistics: nothing of robots or policies."""
