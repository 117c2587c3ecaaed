"""Tidegate shares whole GPU nodes between Kubernetes and Slurm."""

__version__ = "0.1.0"
