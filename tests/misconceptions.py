"""What students believe, planted in the solution of a task: the change, the points that are left, what is told."""

PLANTED = {
    "07_lora": [
        ("lora-sizes", "(n1.width + n1.width)", "n1.width", {"lora.sizes": 0}, "only A is counted, or only B"),
        ("lora-sizes", "n1.blocks * maps * n1.rank", "maps * n1.rank", {"lora.sizes": 0}, "the blocks are left out"),
        ("lora-sizes", '"share": 100 * parameters', '"share": parameters', {"lora.sizes": 3}, "in per cent"),
        ("lora-sizes", "2 * 4 * parameters", "4 * parameters", {"lora.sizes": 3}, "two moments"),
        ("lora-layer", "alpha / (rank if", "alpha + 0 * (rank if", {"lora.layer": 6}, "scaled by alpha alone"),
        ("lora-layer", "weight.new_zeros(weight.shape[0], rank)", "weight.new_zeros(weight.shape[0], rank) + 0.1",
         {"lora.layer": 6}, "B is not zero"),
        ("lora-layer", "torch.randn(rank, weight.shape[1], dtype=weight.dtype)",
         "torch.zeros(rank, weight.shape[1], dtype=weight.dtype)", {"lora.layer": 6}, "A and B are both zero"),
        ("lora-layer", "linear.weight.requires_grad_(False)", "linear.weight", {"lora.layer": 7},
         "the frozen W would be trained"),
        ("lora-layer", "h if self.merged else h + self.scale", "h + self.scale", {"lora.layer": 5},
         "is the update added twice"),
        ("lora-place", "(n3.first, n3.second)", '("query", "value")', {"lora.place": 1}, "yours are"),
        ("lora-layer", "with torch.no_grad():\n            self.linear.weight +=",
         "if True:\n            self.linear.weight +=", {"lora.layer": 5}, "your code stopped in merge"),
        ("lora-place", "inputs[0] @ update.A.T", "output[..., :8] @ update.A.T", {"lora.place": 4}, "their own input"),
        ("lora-place", "Update(target, self.rank)", "Update(target, 4)", {"lora.place": 1}, "Is self.rank used"),
        ("lora-place", "shape[0], rank))", "shape[0], rank), requires_grad=False)", {"lora.place": 2}, "is frozen"),
        ("lora-figure", "min(scores(", "max(scores(", {"lora.figure": 0}, "look at the lowest dot"),
        ("lora-hunt", "### END SOLUTION", "mended.pop(min(mended))", {"lora.hunt": 5}, "a fault is still in"),
        ("lora-hunt", "### END SOLUTION", "mended.popitem()\nmended[1] = 'class LoRALinear:'",
         {"lora.hunt": 4}, "with your line 1"),
        ("lora-smallest", "rank = min(", "rank = 1 + min(", {"lora.smallest": 3}, "a smaller one reaches"),
        ("lora-smallest", "range(1, 11)", "(1, 10)", {"lora.smallest": 1}, "two measurements decide"),
    ]
}  # fmt: skip
