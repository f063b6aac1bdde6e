"""One-off commands: `rpr interval`, `count`, `watch` … Flags become the table of a job, which is loaded like a job."""
