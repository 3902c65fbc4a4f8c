"""The main job, whole: raw files, training, the bill, the page, and one answer from a served model over HTTP.

    python examples/demo.py

Ends with an error if the served answer differs from what `thrifty predict` says of the same file.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RUNS = Path("runs")


def thrifty(*arguments: str | Path, capture: bool = False) -> str:
    """Run one thrifty command, as a user would type it."""
    command = [sys.executable, "-m", "thrifty", *map(str, arguments)]
    if not capture:
        print(f"\n$ thrifty {' '.join(map(str, arguments))}", flush=True)
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE if capture else None)
    return done.stdout or ""


def ask(url: str, image: Path) -> dict[str, Any]:
    """Send one raw image file to a served model, in the form of TensorFlow Serving's REST API."""
    encoded = base64.b64encode(image.read_bytes()).decode()
    body = json.dumps({"instances": [{"b64": encoded}]}).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        answer: dict[str, Any] = json.load(reply)["predictions"][0]
    return answer


def serve_and_ask(run: Path, name: str, image: Path) -> dict[str, Any]:
    """Start a server for a run on a free port of this machine, ask its model by name once, stop it."""
    print(f"\n$ thrifty serve {run} --port 0 &", flush=True)
    command = [sys.executable, "-m", "thrifty", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            line = server.stdout.readline().strip()
            print(line)
            url = f"{line.split()[-1]}/v1/models/{name}:predict"
            print(f'$ curl {url} -d \'{{"instances": [{{"b64": "<{image.name}>"}}]}}\'')
            return ask(url, image)
        finally:
            server.terminate()


def main() -> None:
    """Run both example jobs and serve the first."""
    for data in ("digits", "source_code"):
        subprocess.run([sys.executable, str(HERE / "write_data.py"), data], check=True)
    results = {}
    for job in ("digits", "source_code"):
        thrifty("run", HERE / f"{job}.yaml", "--runs", RUNS)
        results[job] = json.loads(thrifty("run", HERE / f"{job}.yaml", "--runs", RUNS, "--json", capture=True))

    run = Path(results["digits"]["folder"])
    image = sorted((HERE / "data" / "digits" / "7").glob("*.png"))[0]
    served = serve_and_ask(run, "digits", image)
    said = json.loads(thrifty("predict", run, image, "--json", capture=True))
    print(f"served answer   {served['label']}  {max(served['probabilities']):.4f}")
    print(f"thrifty predict {said['label']}  {said['probability']:.4f}")
    if served["label"] != said["label"] or abs(max(served["probabilities"]) - said["probability"]) > 1e-5:
        sys.exit("the served answer differs from thrifty predict's")
    thrifty("run", HERE / "digits.yaml", "--runs", RUNS)
    thrifty("ledger", "--runs", RUNS)
    for job, result in results.items():
        print(f"page of {job:<12} {Path(result['folder']).resolve() / 'report.html'}")
    print(f"served answer of {image.name}: {served['label']}, as thrifty predict says")


if __name__ == "__main__":
    main()
