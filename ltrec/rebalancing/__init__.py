"""The feature bank, and the classifiers that are fitted on it."""
