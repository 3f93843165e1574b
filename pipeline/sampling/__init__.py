"""Draw image codes from a GPT: one batch at a time, or many requests in one."""
