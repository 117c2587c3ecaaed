"""The brain: pure functions from a Snapshot to Commands. No network, no clock, no randomness."""
