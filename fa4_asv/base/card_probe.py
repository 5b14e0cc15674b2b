"""Say what CUDA can do in this process: one line on stdout with a word for each part that works.

`base.isolation` runs it within the bounds of a worker and without them. It imports torch alone, and nothing of the suite.
"""

import sys


def parts() -> str:
    """The words: "memory" for an allocation and a kernel, "profile" where the profiler sees that kernel."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.init()
    values = torch.zeros(1 << 20, device="cuda")
    torch.cuda.synchronize()
    try:
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            values.add_(1)
            torch.cuda.synchronize()
        kernels = [event for event in seen.key_averages() if event.count]
    except RuntimeError as error:
        print(error, file=sys.stderr)
        kernels = []
    return "memory profile" if kernels else "memory"


if __name__ == "__main__":
    print(parts())
