"""What is measured. Never import torch or FA4 at module level here: asv starts a process per figure."""

import os

from fa4_asv.base.ending import die_with_parent

# asv's server forks a process per figure: killed with asv, it must not leave that one measuring.
os.register_at_fork(after_in_child=die_with_parent)
