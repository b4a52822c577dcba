"""Stand-in in plain torch for the parts of torch_scatter that fairchem-core 1.10 calls (it has no CPU wheel)."""

import torch


def scatter(src, index, dim=-1, out=None, dim_size=None, reduce="sum"):
    dim = dim % src.dim()
    size = dim_size if dim_size is not None else (int(index.max()) + 1 if index.numel() else 0)
    shape = list(src.shape)
    shape[dim] = size
    if reduce in ("sum", "add") and index.dim() == 1:
        return torch.zeros(shape, dtype=src.dtype, device=src.device).index_add_(dim, index, src)
    how = {"sum": "sum", "add": "sum", "mean": "mean", "max": "amax", "min": "amin", "mul": "prod"}[reduce]
    if index.dim() != src.dim():
        view = [1] * src.dim()
        view[dim] = -1
        index = index.view(view).expand_as(src)
    zeros = torch.zeros(shape, dtype=src.dtype, device=src.device)
    return zeros.scatter_reduce_(dim, index, src, how, include_self=False)


def segment_coo(src, index, out=None, dim_size=None, reduce="sum"):
    return scatter(src, index, dim=index.dim() - 1, dim_size=dim_size, reduce=reduce)


def segment_csr(src, indptr, out=None, reduce="sum"):
    rows = torch.repeat_interleave(torch.arange(len(indptr) - 1), indptr.diff())
    return scatter(src, rows, 0, dim_size=len(indptr) - 1, reduce=reduce)
