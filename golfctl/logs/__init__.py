"""Reading training logs: lines in, records out. One module per log family."""
