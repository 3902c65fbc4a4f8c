"""The words of all pages in Chinese, by what they are in English; a name in braces stands for what varies."""

import thrifty.report.chinese.live as live
import thrifty.report.chinese.plan as plan
import thrifty.report.chinese.run as run

# whole texts, and those that whoever says them fills in
SAID: dict[str, str] = {**run.SAID, **live.SAID, **plan.SAID}
# texts that come with what varies filled in, and are known by their pattern
GENERATED: dict[str, str] = {**run.GENERATED, **live.GENERATED, **plan.GENERATED}
CHINESE: dict[str, str] = {**SAID, **GENERATED}

__all__ = ["CHINESE", "GENERATED", "SAID"]
