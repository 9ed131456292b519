"""Voice biometrics."""
