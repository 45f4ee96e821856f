"""The disk: campaign, plan files, bases, bundles, ledger, runs, and what people read."""
