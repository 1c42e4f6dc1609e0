"""What a judge sees and what it said: pairing, panels, judges, verdicts, gold."""
