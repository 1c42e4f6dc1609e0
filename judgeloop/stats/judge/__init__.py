"""Estimates of a judge: position, content, probes, self-preference, scores and lists."""
