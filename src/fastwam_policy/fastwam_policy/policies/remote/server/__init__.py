"""`fastwam serve`: a policy for other processes and machines, over the wires that others speak."""
