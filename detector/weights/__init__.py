"""Weights of other projects: mmdet's `.pth` files in and out, without ever running a pickle."""
