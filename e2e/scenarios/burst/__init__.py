"""A burst: load rises, replicas follow, nodes come back from Slurm; load falls, and Slurm has the nodes again."""
