"""Estimates of a loop: drift, amplification, diversity, where a change came from, forecasts."""
