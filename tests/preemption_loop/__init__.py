"""Tests of the preemption loop's own parts: what is counted there must be countable without a lab."""
