"""Where an export works: its folder and journal, what it shows, and what the machine has room for."""
