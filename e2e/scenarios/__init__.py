"""What people do and what goes wrong, played on a real Kubernetes and a real Slurm."""
