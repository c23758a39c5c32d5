"""A small client of gdb's remote serial protocol, for what gdb itself does not show."""

import socket


class Rsp:
    """One conversation without acknowledgements, over a Unix socket."""

    def __init__(self, path, timeout=30):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.buffered = b""
        assert self.ask("QStartNoAckMode") == "OK"

    def close(self):
        self.socket.close()

    def send(self, text):
        data = text.encode("latin-1")
        self.socket.sendall(b"$%s#%02x" % (data, sum(data) & 0xff))

    def receive(self):
        """The next answer, unescaped."""
        while b"#" not in self.buffered or len(self.buffered.split(b"#", 1)[1]) < 2:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.buffered += data
        packet, rest = self.buffered.split(b"#", 1)
        self.buffered = rest[2:]
        data = packet.lstrip(b"+")
        assert data[:1] == b"$", data
        assert sum(data[1:]) & 0xff == int(rest[:2], 16)
        out, escaped = bytearray(), False
        for byte in data[1:]:
            if byte == 0x7d and not escaped:
                escaped = True
                continue
            out.append(byte ^ 0x20 if escaped else byte)
            escaped = False
        return out.decode("latin-1")

    def ask(self, text):
        self.send(text)
        return self.receive()

    def interrupt(self):
        self.socket.sendall(b"\3")
        return self.receive()

    def memory(self, address, size=4):
        return int.from_bytes(bytes.fromhex(self.ask(f"m{address:x},{size:x}")), "little")

    def register(self, number):
        return int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}")), "little")
