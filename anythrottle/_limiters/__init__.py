"""Waiting, fairness and cancellation on AnyIO."""
