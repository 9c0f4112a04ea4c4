"""The browser dashboard: serving its page, and putting it behind a web server."""
