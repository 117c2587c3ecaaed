"""Kubernetes: its client, what the core sees of its objects, and the objects that Tidegate makes there."""
