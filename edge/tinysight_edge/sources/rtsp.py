"""Why an RTSP camera could not be opened, asked of the camera itself: FFmpeg through OpenCV gives no reason."""

import socket
from typing import Final

from tinysight_contract.errors import CameraError
from tinysight_edge.sources.address import Address

__all__ = ["unreachable", "why_not"]

ASK_S: Final = 2.0


def why_not(address: Address) -> CameraError:
    """Connect and ask for the stream's description, without credentials; takes four seconds at most."""
    try:
        with socket.create_connection((address.host, address.port), timeout=ASK_S) as connection:
            connection.sendall(
                f"DESCRIBE {address.plain} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n".encode()
            )
            answer = connection.recv(64).decode("latin-1").split()
    except OSError as error:
        return unreachable(address, error)
    status = answer[1] if len(answer) > 1 and answer[0].startswith("RTSP/") else ""
    match status:
        case "401" | "403" if address.username is None:
            return CameraError(f"{address.shown} wants a user name and a password.", mend="Give both.")
        case "401" | "403":
            return CameraError(
                f"{address.shown} refuses the user name or the password, or has no such stream.",
                mend="Check all three in the camera's own settings.",
            )
        case "404":
            return CameraError(f"{address.shown} has no such stream.", mend="Look its path up in the camera's manual.")
        case "":
            return CameraError(f"{address.shown} does not speak RTSP.", mend="Check the port.")
    return CameraError(
        f"{address.shown} delivers no stream that can be decoded.",
        mend="Set the camera to H.264, or try the other transport.",
    )


def unreachable(address: Address, error: OSError) -> CameraError:
    """What a failed connection means."""
    if isinstance(error, socket.gaierror):
        return CameraError(
            f"{address.shown}: nobody knows the host's name.", mend="Check the name, or give its number."
        )
    if isinstance(error, ConnectionRefusedError):
        return CameraError(f"{address.shown}: nothing listens on that port.", mend="Check the port and the camera.")
    return CameraError(f"{address.shown} does not answer.", mend="Check its network and power.")
