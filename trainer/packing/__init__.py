"""From arrays of a quantised model to few bytes and back: sections, codecs, and our own entropy coder."""
