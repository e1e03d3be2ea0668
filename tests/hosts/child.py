"""A process that `launch` starts: `child.py --name FOLDER PLAN... --hosts.*`.

PLAN has a word for each attempt and process, "0 75/1 0": its exit code, "wait" until a
signal comes, or "hang" whatever comes. It leaves its options in FOLDER.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    words = sys.argv[1:]
    folder, plan = Path(words[words.index("--name") + 1]), words[0]
    me = int(words[words.index("--hosts.process-id") + 1])
    attempt = len(list(folder.glob(f"{me}-*")))
    what = plan.split("/")[attempt].split()[me]
    if what == "wait":
        signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
    if what == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gpu = os.environ["JAX_LOCAL_DEVICE_IDS"]
    told = {"words": words, "pid": os.getpid(), "gpu": gpu}
    path = folder / f"{me}-{attempt}"
    path.with_suffix(".new").write_text(json.dumps(told))
    path.with_suffix(".new").rename(path)
    print(f"out of {me}", flush=True)
    print(f"error of {me}", file=sys.stderr, flush=True)
    if what.lstrip("-").isdecimal():
        code = int(what)
        if code < 0:
            os.kill(os.getpid(), -code)
        raise SystemExit(code)
    time.sleep(60)


if __name__ == "__main__":
    main()
