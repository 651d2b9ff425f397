"""Runs pytest on copies of the package, one forked process each, so that torch is imported once and not for every copy.

python -m tests.mutants.driver          one job a line on stdin, as JSON: {"folder": ..., "arguments": [...], "output": file}
                                        answers each with the exit code
"""

import json
import os
import signal
import sys
import traceback

TIME_LIMIT = 300


def _serve() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.alarm(TIME_LIMIT)
            _run(**job)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(folder: str, arguments: list[str], output: str) -> None:
    """In the child: pytest with the copy of the package ahead of the real one."""
    with open(output, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = folder  # for processes that tests start
    code = 99
    try:
        import pytest

        code = int(pytest.main(arguments))
        import s3ta

        if not (s3ta.__file__ or "").startswith(folder):
            code = 98
    except BaseException:  # noqa: BLE001 - whatever it is, it belongs into the output, and this process ends here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    # Everything heavy, and nothing of s3ta.
    import pyarrow  # noqa: F401
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import timm  # noqa: F401
    import torch
    import torchvision  # noqa: F401

    torch.set_num_threads(1)
    assert "s3ta" not in sys.modules
    _serve()
