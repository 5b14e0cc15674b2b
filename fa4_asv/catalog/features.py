"""What a call may ask of FA4 beyond self-attention of one length: pages, splits, sinks, scores, masks, MLA."""

from __future__ import annotations

from dataclasses import dataclass

SCORES = ("alibi",)  # score functions: what is added to a score
MASKS = ("document",)  # mask functions: which key a query sees


@dataclass(frozen=True)
class Features:
    """A field that is empty is not asked for.

    `keys`: keys of each sequence where there are not as many as queries; a causal mask then ends at the last key.
    `page`: K and V lie in shuffled pages of so many tokens. `splits`: the keys are cut into parts whose results are
    combined. `used`: each sequence says how many of its keys count. `sink`: a learned logit per head, without a value.
    `softcap`: scores are cap * tanh(score / cap). `score`, `mask`: one of SCORES, MASKS, with a tensor of its own.
    `blocks`: only blocks of keys that the mask leaves are visited. `latent`: MLA in absorbed form, so many dimensions
    of K that are V as well. `topk`: each query sees so many keys, which are named by index. `recompute`: that
    backward computes P again. `descale`: a factor per sequence and KV head for each of Q, K and V (FP8).
    """

    keys: int = 0
    page: int = 0
    splits: int = 1
    used: bool = False
    sink: bool = False
    softcap: float = 0.0
    score: str = ""
    mask: str = ""
    blocks: bool = False
    latent: int = 0
    topk: int = 0
    recompute: bool = False
    descale: bool = False

    @property
    def names(self) -> list[str]:
        """Parts of a shape's name, in a fixed order; none where nothing is asked for."""
        each = {
            f"k{self.keys}": self.keys,
            f"page{self.page}": self.page,
            f"split{self.splits}": self.splits > 1,
            "used": self.used,
            "sink": self.sink,
            f"cap{self.softcap:g}": self.softcap,
            self.score: self.score,
            self.mask: self.mask,
            "blocks": self.blocks,
            f"latent{self.latent}": self.latent,
            f"top{self.topk}": self.topk,
            "recompute": self.recompute,
            "descale": self.descale,
        }
        return [name for name, asked in each.items() if asked]

    @property
    def has_backward(self) -> bool:
        """FA4 has none for pages, splits and descale factors, and of MLA only for chosen keys."""
        return not (self.page or self.splits > 1 or self.descale or (self.latent and not self.topk))
