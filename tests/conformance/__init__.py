"""Conformance: measured vector files in, one test per case out."""
