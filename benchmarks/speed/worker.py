"""The process of one contestant and one case: builds, warms up, and runs on request.

Usage: worker.py TASK DEVICE NAME CASE FOLDER, started by `rounds`. The task `compete` prints a JSON
line when it is ready, and one for each input line, which is a number of seconds to run. The task
`write` writes the files that the contestant reads, and ends.
"""

import contextlib
import importlib
import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
from contestants import CONTESTANTS, MATRIX, WRITERS, Case
from networks import CLASSES


def memory_mb(field):
    """Returns VmRSS, the memory of the process, or VmHWM, its peak. None without /proc."""
    with contextlib.suppress(OSError):
        found = re.search(field + r":\s+(\d+)", Path("/proc/self/status").read_text())
        return round(int(found[1]) / 1024)


def device():
    """Returns the name of the device, and the peak of its memory."""
    torch, jax = (sys.modules.get(name) for name in ("torch", "jax"))
    if torch and torch.cuda.is_available():
        return torch.cuda.get_device_name(), round(torch.cuda.max_memory_allocated() / 2**20)
    if jax and (found := jax.devices()[0]).platform != "cpu":
        return found.device_kind, round(found.memory_stats()["peak_bytes_in_use"] / 2**20)
    return "cpu", None


def threads():
    """Returns the thread settings; 0 means one thread per core in TensorFlow."""
    settings = {k: v for k, v in os.environ.items() if re.search(r"(?:OMP|MKL|TF)_NUM_|KMP_", k)}
    if tensorflow := sys.modules.get("tensorflow"):
        threading = tensorflow.config.threading
        settings["tensorflow intra_op"] = threading.get_intra_op_parallelism_threads()
        settings["tensorflow inter_op"] = threading.get_inter_op_parallelism_threads()
    if torch := sys.modules.get("torch"):
        settings["torch"] = torch.get_num_threads()
        settings["torch interop"] = torch.get_num_interop_threads()
    return settings


def check(result, row, case):
    if result is not None and hasattr(result, "detach"):
        result = result.detach().float().cpu()
    result = np.asarray(result, "float32")
    expected = (case.batch, CLASSES) if case.mode == "inference" else ()
    if row.library != MATRIX and result.squeeze().shape != np.empty(expected).squeeze().shape:
        raise ValueError(f"the result must have shape {expected}. Received: {result.shape}")
    if not np.isfinite(result).all():
        raise ValueError("the result is not finite")


def since(began):
    return round(time.perf_counter() - began, 6)


def compete(row, case, folder, answer):
    began = time.perf_counter()
    for module in row.stack.modules:
        importlib.import_module(module)
    ready = {"import_s": since(began), "imported_mb": memory_mb("VmRSS")}

    began = time.perf_counter()
    step = row.step(row.network(case, folder), case)
    ready["build_s"] = since(began)
    began = time.perf_counter()
    check(step(), row, case)
    ready["first_s"] = since(began)
    step()
    answer({**ready, "threads": threads(), "device": device()[0]})

    for line in sys.stdin:
        began, seconds = time.perf_counter(), []
        while not seconds or time.perf_counter() < began + float(line):
            call = time.perf_counter()
            result = step()
            seconds.append(since(call) / getattr(step, "batches", 1))
        check(result, row, case)
        answer({"seconds": seconds, "peak_mb": memory_mb("VmHWM"), "device_peak_mb": device()[1]})


def write(row, case, folder, answer):
    stack, writer = WRITERS[row.network]
    for module in stack.modules:
        importlib.import_module(module)
    writer(case, folder)
    answer({})


def main():
    # Libraries print to stdout, so the answers use a separate descriptor.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(what):
        print(json.dumps(what), file=answers, flush=True)

    task, device_name, name, case, folder = sys.argv[1:]
    case = Case(*json.loads(case))
    row = next(row for row in CONTESTANTS[device_name, case.mode] if row.name == name)
    try:
        {"compete": compete, "write": write}[task](row, case, folder, answer)
    except ModuleNotFoundError as error:
        answer({"error": f"not installed: {error.name}"})
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
