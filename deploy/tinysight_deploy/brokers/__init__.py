"""The development broker, and a site's Mosquitto: certificates, rules, folders."""
