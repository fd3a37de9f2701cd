"""What leaves the pipeline: the exported file, its check, and prediction with it."""
