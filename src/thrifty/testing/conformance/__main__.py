"""``python -m thrifty.testing.conformance``: ask any server for the rows of a protocol, and tell which hold."""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from thrifty.testing.conformance import PROTOCOLS, check_server

_MARKS = {"passed": "✓", "failed": "✗", "not applicable": "-"}


def main() -> int:
    """Run a table; 0 when no row failed, 1 when one did, 2 when there is no server."""
    parser = argparse.ArgumentParser(prog="python -m thrifty.testing.conformance", description=__doc__)
    parser.add_argument("url", help="of the server, such as http://127.0.0.1:8501")
    parser.add_argument("--protocol", required=True, choices=sorted(PROTOCOLS))
    parser.add_argument("--model", help="of its models")
    parser.add_argument("--sample", type=Path, help="JSON file: an instance (tfs), inputs (oip) or a prompt (openai)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    asked = parser.parse_args()
    sample = json.loads(asked.sample.read_text("utf-8")) if asked.sample else None
    try:
        results = check_server(asked.url, asked.protocol, model=asked.model, sample=sample)
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer from {asked.url}: {error}", file=sys.stderr)
        return 2
    counts = Counter[str](result.outcome for result in results)
    if asked.json:
        rows = [asdict(result) for result in results]
        print(json.dumps({"protocol": asked.protocol, "url": asked.url, "counts": counts, "rows": rows}))
    else:
        for result in results:
            print(f"{_MARKS[result.outcome]} {result.name}" + (f": {result.why}" if result.why else ""))
        print(", ".join(f"{counts[outcome]} {outcome}" for outcome in _MARKS))
    return int(counts["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
