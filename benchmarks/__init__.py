"""What is measured. Never import torch or FA4 at module level here: asv starts a process per figure."""
