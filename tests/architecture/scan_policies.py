"""Prints what the policy scanner says of all files of a folder, as JSON; run by .venv/policy's Python.

    .venv/policy/bin/python tests/architecture/scan_policies.py FOLDER

The scanner's own command line imports what it has for forty frameworks before it looks at anything; this asks
the one for Kubernetes, with all its checks, and is done in two seconds.
"""

import json
import sys

from checkov.kubernetes.runner import Runner
from checkov.runner_filter import RunnerFilter


def main() -> None:
    """One list for each outcome: file, object, check, and why it was excepted."""
    report = Runner().run(root_folder=sys.argv[1], runner_filter=RunnerFilter(framework=["kubernetes"]))
    outcomes = {
        "passed": report.passed_checks,
        "failed": report.failed_checks,
        "excepted": report.skipped_checks,
    }
    said: dict[str, list] = {"unread": list(report.parsing_errors)}
    for outcome, found in outcomes.items():
        said[outcome] = [
            [one.file_path, one.resource, one.check_id, one.check_result.get("suppress_comment")]
            for one in found
        ]
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
