"""From a decision to the devices: hear the broker, write down, publish. START HERE: `controller`."""
