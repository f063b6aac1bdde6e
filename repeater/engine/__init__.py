"""The machine that decides: facts and one reading of the clocks in, actions out. No IO, no clock, no sleep."""
