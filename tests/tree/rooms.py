"""The rooms of src/ and what each may include: the table of docs/architecture.md as data.

A room may include itself and the rooms named in its row, nothing else. Narrower
doors are written 'room/file.h'.
"""

ROOMS = {
    "base": [],
    "loop": ["base"],
    "sys": ["base"],
    "codec": ["base"],
    "oci": ["base", "codec"],
    "http": ["base", "loop", "codec"],
    "store": ["base", "loop", "codec", "http"],
    "image": ["base", "loop", "sys", "codec", "oci", "http", "store"],
    "runtime": ["base", "sys", "codec", "oci"],
    "cpu": ["base"],
    "vmm": ["base", "loop", "sys", "codec", "http", "cpu"],
    "agent": ["base", "sys", "codec"],
    "guest": ["base", "sys", "codec", "oci", "http/wire.h", "runtime", "agent/message.h",
              "agent/pump.h"],
    "monitor": ["base", "sys", "codec"],
    "vswitch": ["base", "loop", "sys"],
    "control": ["base", "loop", "store", "vswitch/openflow_wire.h"],
    "sched": ["base"],
    "engine": ["base", "loop", "sys", "codec", "oci", "http", "store", "image", "control",
               "sched", "monitor/protocol.h", "monitor/options.h", "agent/collect.h", "agent/extract.h"],
    "api": ["base", "loop", "codec", "oci", "http", "image", "engine"],
    "cli": ["base", "http", "codec"],
    # Each program may include what its own libraries offer.
    "bin": ["base", "loop", "sys", "codec", "oci", "http", "store", "image", "runtime", "cpu",
            "vmm", "agent", "guest", "monitor", "vswitch", "control", "sched", "engine", "api", "cli"],
}

# Test scaffolding that every room's tests may use.
TEST_HEADERS = ["base/tests/test.h"]
