"""What every step shares: the loop, the clock, the report, the errors and the exit codes."""
