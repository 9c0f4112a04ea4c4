"""What the whole agent holds in RAM, and whether that grows: after 1,000 frames and after 10,000.

    python benchmarks/edge_memory.py        about a minute; some more the first time, to train the detector

A process of its own runs the agent with the small detector over a 720p file with 20 crates in view, against a real
broker. ``rss_mb`` (10^6 bytes) is what the process holds after 10,000 frames, libraries and model included. Prints one
JSON line last.
"""

import argparse
import json

from drive import run_child
from rig import broker, detector, long_video
from steps import where

from tinysight_edge.config.types import CameraConfig


def main() -> None:
    """Run the agent in a child, compare what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    cameras = {"yard": CameraConfig(source=str(long_video(900, 12)))}
    bundle = detector("small")
    with broker() as url:
        said = run_child(bundle, cameras, url, every=1000, health_s=1.0)
    held = {each.frames: each.rss_mb for each in said}
    figures = {"rss_mb": round(held[10_000], 1), "rss_growth_mb": round(held[10_000] - held[1_000], 2)}
    every = [round(each, 1) for each in held.values()]
    print(json.dumps({**figures, "rss_mb_every_1000": every, "where": where()}))


if __name__ == "__main__":
    main()
