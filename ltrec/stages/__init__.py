"""The pipeline's stages: each a command, a module, a section of `params.yaml` and an MLflow stage tag of one name."""
