"""Pictures as data: each module makes a `Scene` from the report's model and a width; svg.py and png.py write it down. Pure."""
