"""What the files of several systems share; no system by itself."""
