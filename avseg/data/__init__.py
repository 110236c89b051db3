"""What a dataset is: clips, AVSBench on disk, preparation, the generated benchmark, loaders."""
