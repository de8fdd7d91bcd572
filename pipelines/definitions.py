"""What Dagster loads: the definitions for this process's environment."""

import atexit
import gc

from windrow.pipelines.build import build
from windrow.resources.settings import Settings

# Dagster, torch and transformers make millions of objects that live as long as the process. Looking
# for garbage among them, while they load and again at the end, took a third of a run's own time.
gc.set_threshold(50_000, 20, 100)
atexit.register(gc.freeze)

defs = build(Settings.read())
