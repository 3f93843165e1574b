"""Pictures: headers read with limits, decoded and brought to sRGB; no network in here."""
