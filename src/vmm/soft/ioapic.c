#include "vmm/soft/ioapic.h"

#include "vmm/layout.h"

#define ENTRY_REMOTE_IRR (1ull << 14)
#define ENTRY_MASKED     (1ull << 16)
#define ENTRY_READ_ONLY  (1ull << 12 | ENTRY_REMOTE_IRR)

#define ENTRY_MODE_VECTOR 0x7ffull

void ioapic_reset(struct ioapic *io)
{
        for (unsigned i = 0; i < IOAPIC_PINS; i++)
                io->entries[i] = ENTRY_MASKED;
        io->lines = io->select = io->id = 0;
}

/* An entry as a message: its bits 48 to 63 are those from 4 on of the address. */
static void send(struct ioapic *io, unsigned pin)
{
        uint64_t e = io->entries[pin];
        uint64_t address = LAYOUT_LAPIC | e >> 48 << 4 | (e >> 11 & 1) << 2;
        uint32_t data = (uint32_t)(e & (IOAPIC_LEVEL | ENTRY_MODE_VECTOR));
        if (e & IOAPIC_LEVEL)
                io->entries[pin] |= ENTRY_REMOTE_IRR;
        if (io->remap && !io->remap(io->remap_arg, &address, &data))
                return;
        io->deliver(io->arg, (uint8_t)(address >> 12), address >> 2 & 1, data >> 8 & 7,
                    (uint8_t)data, data & IOAPIC_LEVEL);
}

/* A level entry that is unmasked, raised and not in service is sent (again). */
static void service_level(struct ioapic *io, unsigned pin)
{
        uint64_t e = io->entries[pin];
        if (e & IOAPIC_LEVEL && !(e & (ENTRY_MASKED | ENTRY_REMOTE_IRR)) && io->lines >> pin & 1)
                send(io, pin);
}

uint32_t ioapic_read(const struct ioapic *io, uint64_t offset)
{
        if (offset == 0)
                return io->select;
        if (offset != 0x10)
                return 0;
        unsigned pin = (io->select - 0x10) / 2;
        if (io->select == 0 || io->select == 2)
                return io->id << 24;
        if (io->select == 1)
                return 0x20 | (IOAPIC_PINS - 1) << 16;
        if (io->select < 0x10 || pin >= IOAPIC_PINS)
                return 0;
        return (uint32_t)(io->entries[pin] >> (io->select & 1 ? 32 : 0));
}

void ioapic_write(struct ioapic *io, uint64_t offset, uint32_t value)
{
        if (offset == 0)
                io->select = value & 0xff;
        else if (offset == 0x40)
                ioapic_eoi(io, (uint8_t)value);
        if (offset != 0x10)
                return;
        unsigned pin = (io->select - 0x10) / 2;
        if (io->select == 0)
                io->id = value >> 24 & 15;
        if (io->select < 0x10 || pin >= IOAPIC_PINS)
                return;
        uint64_t *e = &io->entries[pin];
        if (io->select & 1)
                *e = (uint64_t)value << 32 | (uint32_t)*e;
        else
                *e = (*e & (0xffffffff00000000 | ENTRY_READ_ONLY)) |
                     ((value & 0x1ffff) & ~ENTRY_READ_ONLY);
        if (!(*e & IOAPIC_LEVEL))
                *e &= ~ENTRY_REMOTE_IRR;
        service_level(io, pin);
}

void ioapic_line(struct ioapic *io, unsigned pin, bool raised)
{
        if (pin >= IOAPIC_PINS)
                return;
        bool was = io->lines >> pin & 1;
        io->lines = (io->lines & ~(1u << pin)) | (uint32_t)raised << pin;
        uint64_t e = io->entries[pin];
        if (e & IOAPIC_LEVEL)
                service_level(io, pin);
        else if (raised && !was && !(e & ENTRY_MASKED))
                send(io, pin);
}

void ioapic_eoi(struct ioapic *io, uint8_t vector)
{
        for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
                if ((uint8_t)io->entries[pin] != vector || !(io->entries[pin] & ENTRY_REMOTE_IRR))
                        continue;
                io->entries[pin] &= ~ENTRY_REMOTE_IRR;
                service_level(io, pin);
        }
}
