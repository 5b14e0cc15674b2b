"""The DSL's names for types, as far as score and mask functions ask for them."""

import torch

Float32, Int32, Boolean = torch.float32, torch.int32, torch.bool
