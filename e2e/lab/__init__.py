"""A real site on one Linux machine: Kubernetes by kind, Slurm in containers, Prometheus."""

from e2e.lab.errors import LabError
from e2e.lab.lab import Lab
from e2e.lab.slurm_site import SlurmSite

__all__ = ["Lab", "LabError", "SlurmSite"]
