"""Download foreign URLs safely: addresses are guarded, robots.txt and opt-outs obeyed, sizes and times bounded."""
