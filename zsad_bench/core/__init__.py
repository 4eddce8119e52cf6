"""What knows nothing of the subject: files, checksums, names. Imports nothing of the other rooms."""
