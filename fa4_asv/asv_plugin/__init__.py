"""What asv loads: environment, repository, publisher, and the hooks where asv has no plug-in point."""
