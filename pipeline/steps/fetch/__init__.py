"""filter / fetch: ask for each picture once, keep pairs in img2dataset's layout, and a row per attempt."""
