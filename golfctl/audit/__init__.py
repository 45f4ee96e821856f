"""Is a result valid? Checks that recount from disk, one module a family; see docs/audit.md."""
