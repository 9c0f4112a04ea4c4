"""Every error TinySight raises on purpose, by whose fault it is.

::

    TinySightError
    ├── ConfigError (also ValueError)    the caller asked for something that cannot be
    │   └── NoSuch                       there is nothing of that name
    ├── DataError                        images or labels cannot be used as they are
    ├── TrainError                       a training run cannot start, go on or be read
    ├── ConversionError                  a model cannot become a bundle
    ├── BundleError                      a bundle cannot be trusted or understood
    ├── ContractError (also ValueError)  a topic or message breaks the MQTT contract
    ├── FleetError                       a rollout cannot go on, or its state cannot be read
    │   ├── NotLeading                   another controller leads since
    │   ├── Outdated                     something else is wanted of a device than whoever asks has seen
    │   └── StateGone                    the state's database, or the repository, cannot be used now
    ├── ShapeError (also ValueError)     an array is not the shape its name promises
    └── DeviceError                      the field side said no
        ├── CameraError                  a picture source cannot be opened or read
        ├── BrokerError                  the MQTT broker is absent or refuses us
        │   └── Unsure                   it was sent, and may have arrived all the same
        ├── InferenceError               the model fails on a picture
        ├── RuntimeLoadError             no interpreter here can run the model
        ├── UpdateError                  a bundle is not installed, or does not stay
        └── StoreError                   the device's store is damaged, full or taken

Each carries ``mend``: one imperative sentence that says what to do now. Commands print ``error: <what> <mend>``
on one line and exit with status 2. Third-party errors are wrapped once, at the adapter, with ``from``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinysight_contract.updates import Code

__all__ = [
    "BrokerError",
    "BundleError",
    "CameraError",
    "ConfigError",
    "ContractError",
    "ConversionError",
    "DataError",
    "DeviceError",
    "FleetError",
    "InferenceError",
    "NoSuch",
    "NotLeading",
    "Outdated",
    "RuntimeLoadError",
    "ShapeError",
    "StateGone",
    "StoreError",
    "TinySightError",
    "TrainError",
    "Unsure",
    "UpdateError",
]


class TinySightError(Exception):
    """Base of every error TinySight raises on purpose.

    Attributes:
        what: what is wrong, one sentence with its full stop.
        mend: what to do, one imperative sentence.
    """

    def __init__(self, what: str, *, mend: str) -> None:
        super().__init__(f"{what} {mend}")
        self.what = what
        self.mend = mend


class ConfigError(TinySightError, ValueError):
    """The caller asked for something that cannot be."""


class NoSuch(ConfigError):  # noqa: N818 -- the names of the others say whose fault it is
    """There is nothing of the name that was given."""


class DataError(TinySightError):
    """Images or labels cannot be used as they are."""


class TrainError(TinySightError):
    """A training run cannot start, go on or be read."""


class ConversionError(TinySightError):
    """A model cannot become a bundle."""


class BundleError(TinySightError):
    """A bundle cannot be trusted or understood."""


class ContractError(TinySightError, ValueError):
    """A topic or a message breaks the MQTT contract."""


class FleetError(TinySightError):
    """A rollout cannot go on, or its state cannot be read or written."""


class NotLeading(FleetError):  # noqa: N818 -- it is no fault: another one does the work
    """Another controller leads since: nothing was written, and nothing may be sent."""


class Outdated(FleetError):  # noqa: N818 -- it is no fault: somebody else was quicker
    """Something else is wanted of a device than whoever asks has seen: nothing was sent, or it was overtaken.

    Attributes:
        revision: of what is wanted now; 0 for nothing.
    """

    def __init__(self, what: str, *, mend: str, revision: int) -> None:
        super().__init__(what, mend=mend)
        self.revision = revision


class StateGone(FleetError):  # noqa: N818 -- it is no fault of the caller's: the same call may go well later
    """The database, or the releases, cannot be read now; nothing else is wrong, and the same call may go well later."""


class ShapeError(TinySightError, ValueError):
    """An array is not the shape its name promises."""


class DeviceError(TinySightError):
    """The field side said no."""


class CameraError(DeviceError):
    """A picture source cannot be opened or read."""


class BrokerError(DeviceError):
    """The MQTT broker is absent or refuses us."""


class Unsure(BrokerError):  # noqa: N818 -- nobody knows whether it is one
    """It was sent, and may have arrived all the same: whoever sends it again looks first."""


class InferenceError(DeviceError):
    """The model fails on a picture."""


class RuntimeLoadError(DeviceError):
    """No interpreter here can run the model."""


class StoreError(DeviceError):
    """The device's store is damaged, full or taken."""


class UpdateError(DeviceError):
    """A bundle is not installed, or does not stay.

    Attributes:
        code: why, for programs.
    """

    def __init__(self, what: str, *, mend: str, code: "Code") -> None:
        super().__init__(what, mend=mend)
        self.code = code
