"""A simulator in a process of its own, as small as can be: a point in the plane that is to come to the origin.

It dies or sleeps where a file of its folder says so: see `Point.on_open`.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

SIZE = 8


class Point:
    def on_open(self, folder):
        """`folder/dies` holds a trial and how often the process dies in it, `folder/sleeps` one in which it hangs."""
        self.folder = Path(folder)
        return {}

    def on_modules(self):
        return {"modules": sorted(sys.modules), "path": sys.path}

    def on_begin(self, trial, look):
        print(f"trial {trial} begins")
        file = self.folder / "dies"
        if file.exists():
            when, times = map(int, file.read_text().split())
            if when == trial and times:
                file.write_text(f"{when} {times - 1}")
                print("out of luck", file=sys.stderr)
                os._exit(3)
        if (self.folder / "sleeps").exists():
            time.sleep(60)
        self.place = np.random.default_rng(trial).uniform(-1, 1, 2)
        return {"initial": self.place.tobytes().hex()[:12], "simulator": "point 1", "observation": self._seen(look)}

    def on_step(self, actions, look):
        if actions.shape[1] != 2:
            raise ValueError(f"two numbers, not {actions.shape[1]}")
        for count, action in enumerate(actions, 1):
            self.place = self.place + np.clip(action, -0.1, 0.1)
            if np.abs(self.place).max() < 0.05:
                return {"steps": count, "done": True, "observation": self._seen(look=False)}
        return {"steps": len(actions), "done": False, "observation": self._seen(look)}

    def on_expert(self, steps):
        done, actions = False, []
        while not done and len(actions) < steps:
            actions.append(np.clip(-self.place, -0.1, 0.1))
            done = self.on_step(actions[-1][None], look=False)["done"]
        return {"actions": np.array(actions), "done": done}

    def on_fingerprint(self):
        return {"final": self.place.tobytes().hex()[:12]}

    def _seen(self, look):
        seen = {"state": self.place}
        if look:
            picture = np.zeros((SIZE, SIZE, 3), np.uint8)
            picture[tuple(np.clip(((self.place + 1) / 2 * SIZE).astype(int), 0, SIZE - 1))] = 255
            seen["images"] = {"above": picture}
        return seen
