"""What Dagster loads: the definitions for this process's environment."""

from windrow.pipelines.build import build
from windrow.resources.settings import Settings

defs = build(Settings.read())
