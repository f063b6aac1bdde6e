"""One-off commands: `rpr interval`, `count`, `watch` … Flags become the table of a job, and join the road."""
