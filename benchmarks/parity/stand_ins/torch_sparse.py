"""Stand-in in plain torch for torch_sparse.SparseTensor: what GemNet-OC of fairchem-core 1.10 asks of it."""

import torch


class Storage:
    def __init__(self, row, col, value, rowptr):
        self._row, self._col, self._value, self._rowptr = row, col, value, rowptr

    def row(self):
        return self._row

    def col(self):
        return self._col

    def value(self):
        return self._value

    def rowptr(self):
        return self._rowptr


class SparseTensor:
    """Entries sorted by row, then column; several entries may share a place."""

    def __init__(self, row, col, value=None, sparse_sizes=None, is_sorted=False):
        rows, columns = sparse_sizes
        if not is_sorted:
            order = torch.argsort(row * columns + col, stable=True)
            row, col, value = row[order], col[order], value[order]
        rowptr = torch.zeros(rows + 1, dtype=torch.long)
        rowptr[1:] = torch.bincount(row, minlength=rows).cumsum(0)
        self.sizes = (rows, columns)
        self.storage = Storage(row, col, value, rowptr)

    def sparse_sizes(self):
        return self.sizes

    def coo(self):
        return self.storage._row, self.storage._col, self.storage._value

    def set_value_(self, value, layout=None):
        self.storage._value = value
        return self

    def __getitem__(self, rows):
        kept = self.storage
        count = kept._rowptr[rows + 1] - kept._rowptr[rows]
        row = torch.repeat_interleave(torch.arange(len(rows)), count)
        start = count.cumsum(0) - count
        place = torch.arange(len(row)) - start[row] + kept._rowptr[rows][row]
        return SparseTensor(row, kept._col[place], kept._value[place], (len(rows), self.sizes[1]), is_sorted=True)
