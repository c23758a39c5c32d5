/* Puts a kernel into a machine's memory and says how its first vCPU begins.
 *
 * Recognised by content: a bzImage (unpacked here where that is possible, and then as the
 * next; else by the 64-bit Linux boot protocol, 2.12 or later), an
 * ELF image with a PVH entry note, and a multiboot image (ELF or a.out kludge,
 * as test kernels use it). Files are hostile: every offset and size is checked
 * against the file and against guest memory.
 *
 * Source: Linux Documentation/arch/x86/boot.rst; Xen's PVH boot ABI
 * (hvm_start_info); Multiboot Specification 0.6.96.
 */
#pragma once

#include "cpu/cpu.h"
#include "vmm/memory.h"

enum boot_protocol { BOOT_LINUX64, BOOT_PVH, BOOT_MULTIBOOT };

struct boot_config {
        const char *kernel;  /* path */
        const char *initrd;  /* path, NULL: none */
        const char *cmdline; /* NULL: empty */
        bool packed;         /* a bzImage is run as it is, not unpacked first */
};

struct boot_entry {
        enum boot_protocol protocol;
        uint64_t rip;
        uint64_t info; /* what the protocol hands over: boot_params, start_info, multiboot info */
};

#define BOOT_FILE_MAX (1ull << 30)

int boot_load(const struct memory *memory, const struct boot_config *config, struct boot_entry *ret,
              struct err *err);
/* The vCPU as the protocol wants it, from its reset state on. */
void boot_entry_state(const struct boot_entry *entry, struct cpu_state *state);
