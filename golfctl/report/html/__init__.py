"""The report as one HTML page that needs nothing beside it: page.py says in which order; page.css and page.js lie beside it."""
