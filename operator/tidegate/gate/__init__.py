"""The gate before a model server: it proves that tokens come, counts requests in flight, and lets none be cut off.

It runs as a sidecar of each replica of an InferenceService and knows nothing of Kubernetes.
"""
