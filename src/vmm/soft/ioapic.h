/* An IOAPIC of 24 pins (82093AA with the later EOI register). A pure model: the
 * fabric holds the lock and delivers what ioapic_line(), ioapic_write() and
 * ioapic_eoi() report through `deliver`. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define IOAPIC_PINS  24
#define IOAPIC_LEVEL (1ull << 15) /* of an entry */

struct ioapic {
        uint64_t entries[IOAPIC_PINS];
        uint32_t lines; /* as wired */
        uint32_t select, id;
        /* May rewrite a message before it is delivered, or drop it (false). NULL: nobody does. */
        bool (*remap)(void *arg, uint64_t *address, uint32_t *data);
        void *remap_arg;
        void (*deliver)(void *arg, uint8_t destination, bool logical, unsigned mode, uint8_t vector,
                        bool level);
        void *arg;
};

void ioapic_reset(struct ioapic *io);
uint32_t ioapic_read(const struct ioapic *io, uint64_t offset);
void ioapic_write(struct ioapic *io, uint64_t offset, uint32_t value);
void ioapic_line(struct ioapic *io, unsigned pin, bool raised);
/* A local APIC ended a level-triggered interrupt. */
void ioapic_eoi(struct ioapic *io, uint8_t vector);
