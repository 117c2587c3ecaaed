"""The preemption loop: plain slurmd pods against notebooks of a second scheduler, and Tidegate in their place."""
