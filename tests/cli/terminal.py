"""A program on a pseudo-terminal, as a person would use it."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time


class Terminal:
    def __init__(self, command, rows=24, columns=80, env=None, stderr=None):
        self.master, slave = pty.openpty()
        self.size(rows, columns, signal_it=False)
        self.before = termios.tcgetattr(slave)
        self.output = b""

        def own_terminal():
            # As from a shell: a background job ignores these, and so would the program.
            for signo in (signal.SIGINT, signal.SIGQUIT):
                signal.signal(signo, signal.SIG_DFL)
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=stderr or slave,
                                        env=env, preexec_fn=own_terminal)
        # Kept open here, so that modes can still be read when the program is gone.
        self.slave = slave

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.slave)
        os.close(self.master)

    def size(self, rows, columns, signal_it=True):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text if isinstance(text, bytes) else text.encode())

    def read(self, timeout):
        if select.select([self.master], [], [], timeout)[0]:
            self.output += os.read(self.master, 65536)
            return True
        return False

    def expect(self, text, timeout=10.0):
        """Waits for text on the screen; forgets what was before its end."""
        text = text.encode() if isinstance(text, str) else text
        deadline = time.monotonic() + timeout
        while text not in self.output:
            left = deadline - time.monotonic()
            if left <= 0 or not self.read(left):
                raise AssertionError(f"no {text!r} within {timeout} s in {self.output!r}")
        before, _, self.output = self.output.partition(text)
        return before

    def wait(self, timeout=10.0):
        """The exit status (negative: the signal); reads what is printed meanwhile."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            self.read(0.02)
            if time.monotonic() > deadline:
                raise AssertionError(f"still running; shown: {self.output!r}")
        while self.read(0):
            pass
        return self.process.returncode

    def stop(self, signo=signal.SIGTERM):
        self.process.send_signal(signo)

    @property
    def modes(self):
        return termios.tcgetattr(self.slave)

    @property
    def raw(self):
        return not self.modes[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    @property
    def restored(self):
        return self.modes == self.before
