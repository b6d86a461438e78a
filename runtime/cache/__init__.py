"""The user's cache folder: what was hashed or compiled before."""
