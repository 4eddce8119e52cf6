"""What knows nothing of anomaly detection: devices, random numbers, files."""
