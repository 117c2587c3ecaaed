"""How long hand-overs take and what the operator costs, measured on the lab. `python -m benchmarks` writes the page."""
