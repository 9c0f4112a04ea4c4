"""What others ask of this device over MQTT: commands, and the desired state."""
