"""What a video is: frames, sound and motion read from files, and files written from them."""
