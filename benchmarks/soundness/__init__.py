"""What each check refuses: honest work under numerical drift, and a catalogue of forgeries.

`python -m benchmarks.soundness` measures both and writes docs/soundness.md and its plot.
"""
