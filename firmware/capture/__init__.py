"""The capture daemon: camera, sequence, what makes a frame usable, guidance; and its client."""
