/* The address spaces of a virtual machine, as types that do not mix.
 *
 * A guest physical address indexes the machine's memory and MMIO; a guest
 * virtual address means something only together with a vCPU's page tables; a
 * host address is memory of this process that backs guest memory: what it holds
 * may change at any moment under a running guest, so it is read once, then
 * checked.
 */
#pragma once

#include <stdint.h>

struct gpa {
        uint64_t value;
};

struct gva {
        uint64_t value;
};

struct hva {
        uint8_t *bytes;
};

static inline struct gpa gpa(uint64_t value)
{
        return (struct gpa){ value };
}

static inline struct gpa gpa_add(struct gpa a, uint64_t offset)
{
        return (struct gpa){ a.value + offset };
}
