"""Training: one loop for every architecture and task, readable from the step to the record."""
