"""Executed compute: every product counts once, whatever form it is called in."""

import pytest
import torch

from equiscale.train.flops import counted

A, B = torch.randn(10, 20), torch.randn(20, 30)


@pytest.mark.parametrize(
    "product",
    [
        lambda: A @ B,
        lambda: torch.mm(A, B, out=torch.empty(10, 30)),
        lambda: torch.addmm(torch.zeros(30), A, B),
        lambda: torch.zeros(10, 30).addmm_(A, B),
        lambda: torch.zeros(1, 10, 30).baddbmm_(A[None], B[None]),
    ],
    ids=["operator", "out", "added", "added in place", "batched in place"],
)
def test_a_product_counts_two_flops_per_multiplication(product):
    assert counted(product) == 2 * 10 * 20 * 30
