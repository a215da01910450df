"""What goes: by retention, by erasure; and what a legal hold keeps."""
