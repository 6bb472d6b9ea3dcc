"""`ahriuwu doctor`: checks of the machine and of everything a run has made."""

from ahriuwu_cli.doctor.examination import examine

__all__ = ["examine"]
