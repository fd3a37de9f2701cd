"""What `params.yaml` may say, and what is said where it is wrong."""
