"""A process with a watch and nothing else: `lonely.py ADDRESS N I SILENCE PATIENCE`.

It says "here", then does what each line of its input says.
"""

import os
import sys
import time

from jaxrl_par.hosts.config import HostsConfig
from jaxrl_par.hosts.roll import call_roll
from jaxrl_par.hosts.watch import Watch


def main() -> None:
    address, processes, process, silence, patience = sys.argv[1:]
    config = HostsConfig(address, int(processes), int(process))
    watch = Watch(call_roll(config, {}), float(silence), float(patience))
    watch.start()
    print("here", flush=True)
    for line in sys.stdin:
        if line == "border\n":
            watch.border()
        elif line == "sleep\n":
            time.sleep(60)
        elif line == "fail\n":
            watch.fail(1)
        elif line == "puzzled\n":
            watch.fail(None)
        elif line == "exit\n":
            os._exit(3)
        elif line == "done\n":
            watch.wait_for_all()
            watch.close()
            return
        print("did", flush=True)


if __name__ == "__main__":
    main()
