"""The demo: a node goes to Slurm, comes back for a more important pod, and no job is lost; watched and told."""
