"""What the recording of calls costs: CPU microseconds to append, open and read an exchange, and the memory that an open one holds.

``python benchmarks/cassette.py [--calls N]`` records N generated judge calls of about 2 kB in a temporary folder (default 100,000),
opens the folder anew and reads one call in ten. Exit 1 above 10 µs an append, 5 µs a call to open and 50 µs a call to read.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
import tracemalloc

from judgeloop.records import Call
from judgeloop.wire.cassette import Cassette, Exchange

LIMITS_US = {"append": 10.0, "open": 5.0, "read": 50.0}
WORDS = b"the quick brown fox jumps over the lazy dog and then goes home to sleep well ".decode()


def exchange(number: int) -> Exchange:
    """A judge call's exchange, of about 2 kB."""
    body = {"model": "m", "messages": [{"role": "user", "content": f"{number} {WORDS * 18}"}], "max_tokens": 512, "temperature": 0.0}  # fmt: skip
    call = Call(f"audit/judge/m/q{number // 2}/p{number // 2}/{'ab' if number % 2 else 'ba'}/r0", "m", body)
    usage = {"prompt_tokens": 350, "completion_tokens": 5, "total_tokens": 355}
    message = {"role": "assistant", "content": "[[A]]"}
    response = {"id": "x", "object": "chat.completion", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}  # fmt: skip
    return Exchange(call.call_id, call.key, body, 200, response, 1)


def main() -> None:
    """Print the three, and the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    asked = parser.parse_args()
    took = dict.fromkeys(LIMITS_US, 0.0)
    keys: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        cassette = Cassette(folder, writable=True)
        for first in range(0, asked.calls, 1000):
            batch = [exchange(number) for number in range(first, min(first + 1000, asked.calls))]
            began = time.process_time()
            for each in batch:
                cassette.append(each)
            took["append"] += (time.process_time() - began) / asked.calls
            keys += [(each.call, each.key) for each in batch]
        cassette.close()
        del cassette
        gc.collect()
        began = time.process_time()
        cassette = Cassette(folder, writable=False)
        took["open"] = (time.process_time() - began) / asked.calls
        began = time.process_time()
        for call, key in keys[::10]:
            assert cassette.get(call, key) is not None
        took["read"] = (time.process_time() - began) / len(keys[::10])
        cassette.close()
        del cassette
        tracemalloc.start()
        cassette = Cassette(folder, writable=False)
        held, _ = tracemalloc.get_traced_memory()
        cassette.close()
    for what, limit in LIMITS_US.items():
        print(f"{what}: {took[what] * 1e6:.1f} µs a call (limit {limit:g})")
    print(f"held open: {held / 2**20:.0f} MB for {asked.calls:,} calls")
    sys.exit(any(took[what] * 1e6 > limit for what, limit in LIMITS_US.items()))


if __name__ == "__main__":
    main()
