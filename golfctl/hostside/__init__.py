"""What runs on the host as the parent of every run: standard library only, imports nothing else of golfctl."""
