"""What the plan of the scaling paper's ladders (paper_plan.py) is made of."""
