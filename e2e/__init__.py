"""End-to-end tests: the lab they run on, the scenarios, the witness."""
