"""What learning is: losses, weak-to-strong consistency, the training task and its run folder."""
