"""Whole experiments: train, fence, attack, tabulate. The only place that knows the fence, the attacks and the data."""
