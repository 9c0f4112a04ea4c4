"""An RTSP camera: GStreamer's server, run by Debian's Python in a process of its own, see `cameras.RtspServer`.

Debian: gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-base, -good (RTP, UDP) and -ugly (x264). It says
``ready`` on stdout once it listens, and then takes patterns of ``videotestsrc`` from stdin, one a line.
"""

import argparse
import sys
import threading

import gi  # type: ignore[import-not-found, unused-ignore] # Debian's, of the system's Python alone

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found, unused-ignore] # noqa: E402 -- as gi wants it

PIPELINE = (
    "( videotestsrc name=eye is-live=true pattern={pattern}"
    " ! video/x-raw,width={width},height={height},framerate={fps}/1"
    " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={fps} bitrate=1500 ! rtph264pay name=pay0 pt=96 )"
)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    parser.add_argument("--width", default="320")
    parser.add_argument("--height", default="240")
    parser.add_argument("--fps", default="15")
    parser.add_argument("--pattern", default="ball")
    parser.add_argument("--user")
    parser.add_argument("--password")
    given = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=given.port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE.format(**vars(given)))
    factory.set_shared(True)
    if given.user:
        auth = GstRtspServer.RTSPAuth()
        auth.set_supported_methods(GstRtspServer.RTSPAuth.get_supported_methods(auth))
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(given.user, given.password), token)
        server.set_auth(auth)
        role = Gst.Structure.new_empty("viewer")
        role.set_value("media.factory.access", True)
        role.set_value("media.factory.construct", True)
        factory.add_role_from_structure(role)
    eyes: list[object] = []
    factory.connect("media-configure", lambda _, media: eyes.append(media.get_element().get_by_name("eye")))
    server.get_mount_points().add_factory("/stream", factory)
    server.attach(None)
    loop = GLib.MainLoop()

    def obey() -> None:
        for line in sys.stdin:
            given.pattern = line.strip()
            factory.set_launch(PIPELINE.format(**vars(given)))
            for eye in eyes:
                Gst.util_set_object_arg(eye, "pattern", given.pattern)
        loop.quit()

    threading.Thread(target=obey, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    loop.run()


main()
