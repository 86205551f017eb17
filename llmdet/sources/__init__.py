"""Readers of public on-disk formats. Each yields Records, and a Reject for whatever it leaves out."""
