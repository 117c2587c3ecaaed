"""The operator: a kopf shell that feeds one loop, small appliers, events, metrics and the Lease."""
