"""What a submission may print, hold and write; and the end of what does not end by itself."""

import contextlib
import threading

PRINTED = 200_000  # characters a cell may show
MEMORY = 4 * 2**30  # bytes of data a submission may hold
WRITTEN = 256 * 2**20  # bytes of a file it may write


def load_ipython_extension(shell, most: int = PRINTED) -> None:
    """In a student's kernel: a cell that prints more than `most` characters is stopped.

    As an extension and not a line executed at the start, since IPython puts the streams' `write`
    back after such a line.

    Args:
        shell: IPython's shell, whose cells start the count anew.
    """
    from ipykernel.iostream import OutStream

    printed, write = [0], OutStream.write
    show, publish = shell.displayhook.write_format_data, shell.display_pub.publish

    def begin(*_):
        printed[0] = 0

    def limited(self, text):
        printed[0] += len(text)
        if printed[0] <= most:
            return write(self, text)
        if threading.current_thread() is threading.main_thread():
            begin()
            raise RuntimeError(f"more than {most:,} characters printed by one cell")
        return len(text)  # what came past Python, through the file descriptor

    OutStream.write = limited
    shell.displayhook.write_format_data = lambda data, *a, **k: show(short(data, most), *a, **k)
    shell.display_pub.publish = lambda data, *a, **k: publish(short(data, most), *a, **k)
    shell.events.register("pre_run_cell", begin)


def short(data: dict, most: int) -> dict:
    """Representations of a shown value, too long ones replaced by a sentence.

    Example:
        >>> short({"text/plain": "x" * 9}, 5)
        {'text/plain': '9 characters: too many to show'}
    """
    return {kind: value if len(value) <= 20 * most and (kind != "text/plain" or len(value) <= most)
            else f"{len(value):,} characters: too many to show" for kind, value in data.items()}


def limit_resources() -> None:
    """Memory and file sizes of this process and the kernels it starts, where the system can."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    for kind, most in ((resource.RLIMIT_DATA, MEMORY), (resource.RLIMIT_FSIZE, WRITTEN)):
        _, hard = resource.getrlimit(kind)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, hard))


def end_tree(pid: int) -> None:
    """End a process and all that it started: a kernel is in a session of its own."""
    import psutil

    try:
        started = psutil.Process(pid)
        tree = [*started.children(recursive=True), started]
    except psutil.NoSuchProcess:
        return
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
