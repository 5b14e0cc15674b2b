"""Which source and which toolchain stand behind a commit."""
