"""A plan's result as a folder ready for a pull request, audited and scored again from that folder alone; see docs/submit.md."""
