"""The report that people read, from the record alone."""

# Set by `fa4-asv publish`, which makes the report itself meanwhile.
REPORT_BESIDE = "FA4_ASV_REPORT_BESIDE"
