"""The demo: real pictures, planted faults, a truth table and a report."""
