"""What a pod runs: wiring only."""
