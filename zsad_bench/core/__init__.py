"""What knows nothing of the subject: devices, files, checksums, names. Imports nothing of the other rooms."""
