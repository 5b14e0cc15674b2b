"""What FA4's utils say of its own score functions, and how they wrap a value."""


def create_softcap_scoremod(cap):
    def softcap(scores, batch_idx, head_idx, q_idx, kv_idx, seqlen_info, aux_tensors):
        return cap * (scores / cap).tanh()

    return softcap


def scalar_to_ssa(value, _):
    return value
