"""How a process is put together: settings, command line, logs and health; imports every part, imported by none."""
