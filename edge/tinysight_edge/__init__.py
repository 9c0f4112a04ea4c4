"""The device: camera → model → tracks → events → MQTT. Start reading at `runtime`."""
