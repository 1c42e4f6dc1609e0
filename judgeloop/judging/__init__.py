"""What is asked of a judge, and what a reply says."""
