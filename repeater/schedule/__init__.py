"""When a job runs next. Pure: instants in, instants out. No clock is read here and nothing waits."""
