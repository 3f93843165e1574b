"""Make damaged and missing files of a run again, byte for byte."""
