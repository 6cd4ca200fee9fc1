"""What each provider calls things: one pure file per provider, added beside this one."""
