"""What moved a figure: source or toolchain, which package, which upstream commit."""
