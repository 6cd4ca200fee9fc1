"""History from elsewhere: a file for each origin, and one that writes what they tell."""
