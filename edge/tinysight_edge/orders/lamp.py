"""A light on the device that blinks, for who stands before a rack of them.

In: ``/sys/class/leds``.  Out: one LED blinks for some seconds in a thread of its own and is then what it was. Takes the
first that this process may write to, and none without complaint: most users may write to none.
"""

import logging
import os
import threading
from pathlib import Path
from typing import Final

__all__ = ["LEDS", "Lamp"]

log = logging.getLogger(__name__)

LEDS: Final = Path("/sys/class/leds")
_FIRST: Final = ("ACT", "led0", "PWR", "led1")
"""Of Raspberry Pis: activity and power."""
_HALF_S: Final = 0.2
_MAX_TEXT: Final = 4096


class Lamp:
    """The light of one device.

    Args:
        leds: the kernel's folder of LEDs.
    """

    def __init__(self, leds: Path = LEDS) -> None:
        self._leds = leds
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def blink(self, seconds: float) -> str | None:
        """Begin to blink for so long; the LED's name, None when there is none to be had. One that blinks goes on."""
        self.stop()
        led = next((each for each in self._known() if os.access(each / "brightness", os.W_OK)), None)
        if led is None:
            return None
        self._stop.clear()
        self._thread = threading.Thread(target=self._blink, args=(led, seconds), name="lamp", daemon=True)
        self._thread.start()
        return led.name

    def stop(self) -> None:
        """Let the LED be what it was; may be called although nothing blinks."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2 * _HALF_S)

    def _known(self) -> list[Path]:
        """Keyboards' lights (``input3::capslock``) come last."""
        try:
            found = sorted(self._leds.iterdir())
        except OSError:
            return []
        order = {name: place for place, name in enumerate(_FIRST)}
        return sorted(found, key=lambda led: (order.get(led.name, len(order)), led.name.startswith("input")))

    def _blink(self, led: Path, seconds: float) -> None:
        try:
            trigger, before = _trigger(led), _text(led / "brightness")
            full = _text(led / "max_brightness") or "1"
            try:
                if trigger is not None:
                    (led / "trigger").write_text("none")
                for number in range(max(1, round(seconds / _HALF_S))):
                    (led / "brightness").write_text("0" if number % 2 else full)
                    if self._stop.wait(_HALF_S):
                        break
            finally:
                (led / "brightness").write_text(before or "0")
                if trigger is not None:  # last: it decides from here on
                    (led / "trigger").write_text(trigger)
        except OSError as error:
            log.warning("%s cannot be written: %s", led, error.strerror)


def _trigger(led: Path) -> str | None:
    """What makes it shine, which stands in brackets among all that could; None when it may not be changed."""
    if not os.access(led / "trigger", os.W_OK):
        return None
    return next((word[1:-1] for word in _text(led / "trigger").split() if word[:1] == "["), None)


def _text(path: Path) -> str:
    try:
        return path.read_text()[:_MAX_TEXT].strip()
    except (OSError, UnicodeDecodeError):
        return ""
