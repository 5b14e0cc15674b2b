"""What asv loads ("plugins": [".fa4_asv.asv_glue.plugin"]): the environment, the repository, the report, the seams."""

from fa4_asv.asv_glue.environment import Fa4Environment
from fa4_asv.asv_glue.repo import Fa4History
from fa4_asv.asv_glue.report import Fa4Report
from fa4_asv.asv_glue.seams import setup

__all__ = ["Fa4Environment", "Fa4History", "Fa4Report", "setup"]
