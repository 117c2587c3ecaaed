"""Slurm: the REST client by version, tokens, and what the core sees of nodes and jobs."""
