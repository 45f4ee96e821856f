"""Words of the house as frozen data: no I/O, no decisions."""
