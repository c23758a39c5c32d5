#!/usr/bin/python3
"""Runs the FEX project's unittests/ASM and 32Bit_ASM on the software CPU.

    run_fex.py RUN_PROGRAM FEX_CHECKOUT [PATH-FILTER]

FEX_CHECKOUT is a directory holding `unittests/`; it stays outside this tree. With GUEST_TRANSLATED=1 in the environment all code
is translated.
Needs nasm. Prints one line per failure and a summary; exits 1 when something
failed that is not a feature our CPUID hides.
"""
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

HIDDEN = {"3DNOW", "SSE4A", "CLZERO", "AES256", "AFP", "EMMI", "LINUX"}
MASK = (1 << 64) - 1
# Programs that expect what FEX does and the architecture (or this runner) does not.
EXPLAINED = {
    "Primary/Primary_8C.asm": "loads selectors that do not exist; FEX does not check them",
    "Primary/Primary_8C_2.asm": "loads selectors that do not exist; FEX does not check them",
    "Primary/Pop_Segments.asm": "loads a null SS; FEX does not check it",
    "Primary/Primary_E8.asm": "operand size prefix on a near branch: AMD's way, we have Intel's",
    "Primary/Primary_E9.asm": "operand size prefix on a near branch: AMD's way, we have Intel's",
    "PrimaryGroup/5_FF_05.asm": "REX.W on a far jump: AMD's way, we have Intel's",
    "PrimaryGroup/5_FF_05_03_o64.asm": "REX.W on a far jump: AMD's way, we have Intel's",
    "PrimaryGroup/5_FF_05_03_o64_imm.asm": "REX.W on a far call: AMD's way, we have Intel's",
    "FEX_bugs/32bit_syscall.asm": "wants a Linux kernel",
    "TwoByte/0F_02.asm": "wants a Linux kernel",
    "FEX_bugs/SegmentAddressOverride.asm": "wants 4 GiB of memory",
    "Secondary/07_XX_00.asm": "wants the table addresses of Linux",
    "Secondary/07_XX_04.asm": "SMSW to a 32-bit register that keeps the upper half",
    "Secondary/09_XX_07.asm": "RDSEED, where the host has none",
    "X87/D9_F2.asm": "FPTAN's last bit is that of another processor than this host's",
    "X87/precision_test_ftan.asm": "FPTAN's last bit is that of another processor",
    "X87/precision_test_neg_ftan.asm": "FPTAN's last bit is that of another processor",
    "X87/D9_F9.asm": "FYL2XP1 outside its domain",
    "X87/FXAM_Simple.asm": "FXAM of zero as FEX has it",
    "X87/X87MMXInteraction.asm": "FNSAVE's tag word as FEX has it",
    "VEX/vldmxcsr.asm": "MXCSR without exception flags as FEX has it",
    "VEX/vpclmulqdq_256.asm": "VPCLMULQDQ is hidden",
    "modrm_oob/VEX.asm": "VPCLMULQDQ is hidden",
    "modrm_oob/DDD.asm": "3DNow! is hidden",
}


def config_of(text):
    parts = text.split("%ifdef CONFIG")
    if len(parts) < 2:
        return None
    return {k.upper(): v for k, v in json.loads(parts[1].split("%endif")[0]).items()}


def assemble(source, text, bits, includes, directory):
    path = os.path.join(directory, "program.asm")
    head = f"BITS {bits}\n" + ("org 10000h\nmov eax, 0x17\nmov ds, ax\nmov es, ax\n"
                                if bits == 32 else "")
    with open(path, "w") as f:
        f.write(head + text + "\nret\n")
    out = os.path.join(directory, "program.bin")
    subprocess.run(["nasm", "-w-all", "-i", includes + "/", "-i", os.path.dirname(source) + "/",
                    path, "-o", out], check=True, capture_output=True)
    return out


def memory_hex(value):
    """As FEX reads it: numbers little-endian, one after the other."""
    data = b""
    for number in value.split(" "):
        digits = number[2:] if number.startswith("0x") else number
        digits = "0" * (len(digits) % 2) + digits
        data += bytes.fromhex(digits)[::-1]
    return data.hex()


def differences(config, output):
    lines = {l.split()[0]: l.split()[1:] for l in output.splitlines()}
    wrong = []
    if lines["end"][0] != "13" and lines["end"][0] != "14":
        wrong.append("ended with " + " ".join(lines["end"]))
    for name, expected in config.get("REGDATA", {}).items():
        name = name.upper()
        values = expected if isinstance(expected, list) else [expected]
        if name == "RIP" or name not in lines:
            continue
        for i, value in enumerate(values):
            want = int(value, 0) & MASK
            got = int(lines[name][i], 16) if i < len(lines[name]) else None
            if name.startswith("MM") and i == 1:
                want &= 0xffff
            if got != want:
                wrong.append(f"{name}[{i}] {got:x} expected {want:x}")
    return wrong


def run_one(program, root, path, bits):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    config = config_of(text)
    if config is None:
        return "skip", "no expectation"
    features = {f.upper() for f in config.get("HOSTFEATURES", [])}
    if features & HIDDEN:
        return "hidden", " ".join(sorted(features & HIDDEN))
    if config.get("MODE", "64BIT").upper() == "32BIT":
        bits = 32
    with tempfile.TemporaryDirectory() as directory:
        try:
            binary = assemble(path, text, bits, os.path.join(root, "unittests/ASM/Includes"),
                              directory)
        except subprocess.CalledProcessError as e:
            return "skip", "nasm: " + e.stderr.decode().splitlines()[0]
        args = [program] + (["-3"] if bits == 32 else [])
        regions = {0xe0000000: 0xa000, 0xe7fff000: 0x2000}
        for k, v in config.get("MEMORYREGIONS", {}).items():
            regions[int(k, 0)] = int(v, 0)
        for at, size in regions.items():
            args += ["-r", f"{at:x}:{size:x}"]
        for k, v in config.get("MEMORYDATA", {}).items():
            args += ["-m", f"{int(k, 0):x}:{memory_hex(v)}"]
        try:
            r = subprocess.run(args + [binary], capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            return "fail", "timeout"
        if r.returncode:
            return "fail", f"runner: {r.returncode} {r.stderr.strip()}"
        wrong = differences(config, r.stdout)
        return ("fail", "; ".join(wrong)) if wrong else ("pass", "")


def main():
    program, root = sys.argv[1:3]
    only = sys.argv[3] if len(sys.argv) > 3 else ""
    jobs = []
    for directory, bits in (("unittests/ASM", 64), ("unittests/32Bit_ASM", 32)):
        for base, _, files in os.walk(os.path.join(root, directory)):
            jobs += [(os.path.join(base, f), bits) for f in sorted(files)
                     if f.endswith(".asm") and only in os.path.join(base, f)]
    counts = {"pass": {}, "fail": {}, "explained": {}, "hidden": {}, "skip": {}}
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda j: run_one(program, root, *j), jobs)
        for (path, bits), (what, why) in zip(jobs, results):
            name = "/".join(path.split("/")[-2:])
            if what == "fail" and name in EXPLAINED:
                what = "explained"
            counts[what][bits] = counts[what].get(bits, 0) + 1
            if what in ("fail", "skip"):
                print(what, os.path.relpath(path, root), why[:160])
    for bits in (64, 32):
        print(f"{bits}-bit:", ", ".join(f"{n.get(bits, 0)} {what}" for what, n in counts.items()))
    return 1 if sum(counts["fail"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
