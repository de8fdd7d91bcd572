"""What Dagster loads: the definitions for this process's environment."""

import atexit
import gc

import pyarrow as pa

from windrow.pipelines.build import build
from windrow.resources.configuration.settings import Settings

# Dagster, torch and transformers make millions of objects that live as long as the process. Looking
# for garbage among them, while they load and again at the end, took a third of a run's own time.
gc.set_threshold(50_000, 20, 100)
atexit.register(gc.freeze)
# Arrow's own pool touches fresh pages for every large column; the system's gives them back at once:
# a first read of a window file takes half the time, and a quarter less memory.
pa.set_memory_pool(pa.system_memory_pool())

defs = build(Settings.read())
