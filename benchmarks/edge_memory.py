"""What the whole agent holds in RAM, and whether that grows: after 1,000 frames and after 10,000.

    python benchmarks/edge_memory.py        about a minute; some more the first time, to train the detector

A process of its own runs the agent with the belt's detector over a 720p file with 20 crates in view, against a real
broker. ``rss_mb`` (10^6 bytes) is what the process holds after 10,000 frames, libraries and model included. Prints one
JSON line last.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from drive import run_agent
from rig import broker, detector, long_video

MARKS: Final = (1_000, 2_000, 5_000, 10_000)


def rss_mb() -> float:
    """What this process holds in RAM, in 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def watch(agent: Any) -> None:  # noqa: ANN401 -- the agent, whose hub counts what its loop takes
    """Say on stdout what is held at each mark."""

    def look() -> None:
        for mark in MARKS:
            while agent.hub.taken < mark:
                time.sleep(0.005)
            print(json.dumps({"frames": mark, "rss_mb": rss_mb()}), flush=True)

    threading.Thread(target=look, daemon=True).start()


def main() -> None:
    """Run the agent in a child, compare what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", help=argparse.SUPPRESS, nargs=3, metavar=("BUNDLE", "VIDEO", "URL"))
    given = parser.parse_args()
    if given.child is not None:
        bundle, video, url = given.child
        run_agent(Path(bundle), {"yard": video}, url, watch=watch)
        return
    video, bundle = long_video(900, 12), detector("belt")
    with broker() as url:
        child = [sys.executable, __file__, "--child", str(bundle), str(video), url]
        said = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True).stdout
    held = {each["frames"]: each["rss_mb"] for each in map(json.loads, said.splitlines())}
    figures = {"rss_mb": round(held[10_000], 1), "rss_growth_mb": round(held[10_000] - held[1_000], 2)}
    print(json.dumps({**figures, "held": {str(mark): round(mb, 2) for mark, mb in held.items()}}))


if __name__ == "__main__":
    main()
