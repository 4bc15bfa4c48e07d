"""Work that must happen, once, whoever is killed meanwhile: jobs, their workers, schedules."""
