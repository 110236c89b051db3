"""The paper's tables as data: what to run, what was run, and how it looks beside the paper's numbers."""
