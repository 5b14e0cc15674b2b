"""What asv loads ("plugins": [".fa4_asv.asv_plugin.plugin"]): the environment, the repository, the report, the hooks."""

from fa4_asv.asv_plugin.environment import Fa4Environment
from fa4_asv.asv_plugin.hooks import setup
from fa4_asv.asv_plugin.publisher import Fa4Report
from fa4_asv.asv_plugin.repo import Fa4History

__all__ = ["Fa4Environment", "Fa4History", "Fa4Report", "setup"]
