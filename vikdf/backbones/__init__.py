"""Every backbone as a local folder in its ecosystem's own form; nothing after this stage knows where one came from."""
