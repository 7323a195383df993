"""What recordings say: summaries and reports."""
