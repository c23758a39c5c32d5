/* A disk's MSI-X without an operating system: 32-bit, flat. Has the disk read a sector several
 * times, with its queue's vector open, changed, and masked; at a key it leaves by the debug port,
 * with 21 where every interrupt came when it should. */
#include <stdint.h>

#define ECAM       0xe0000000u
#define DISK       0x10421af4u
#define APIC       0xfee00000u
#define RING       8u
#define VECTOR     0x41
#define VECTOR_NEW 0x42

enum { COMMON = 0, NOTIFY = 0x3000, MSIX = 0x4000 }; /* places in BAR 0, as our devices have them */
enum {
        STATUS = 20,
        QUEUE_SELECT = 22,
        QUEUE_SIZE = 24,
        QUEUE_VECTOR = 26,
        QUEUE_ENABLE = 28,
        DESCRIPTORS = 32,
        AVAILABLE = 40,
        USED = 48
};

struct gate {
        uint16_t low, segment, kind, high;
};
struct descriptor {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
};

static struct gate gates[256] __attribute__((aligned(8)));
static struct descriptor descriptors[RING] __attribute__((aligned(16)));
static volatile struct {
        uint16_t flags, index, ring[RING];
} available;
static volatile struct {
        uint16_t flags, index;
        struct {
                uint32_t id, length;
        } ring[RING];
} used __attribute__((aligned(4)));
static struct {
        uint32_t kind, priority;
        uint64_t sector;
} request;
static uint8_t sector[512], done;
static volatile unsigned old_count, new_count;
static uintptr_t bar, pending_bits;

static void out8(uint16_t port, uint8_t value)
{
        __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void leave(uint8_t code)
{
        out8(0xf4, code);
        for (;;)
                __asm__ volatile("hlt");
}

static void write8(uintptr_t at, uint8_t v)
{
        *(volatile uint8_t *)at = v;
}
static void write16(uintptr_t at, uint16_t v)
{
        *(volatile uint16_t *)at = v;
}
static void write32(uintptr_t at, uint32_t v)
{
        *(volatile uint32_t *)at = v;
}
static uint32_t read32(uintptr_t at)
{
        return *(volatile uint32_t *)at;
}

__asm__("on_old: incl old_count\n movl $0, 0xfee000b0\n iret\n"
        "on_new: incl new_count\n movl $0, 0xfee000b0\n iret\n");
extern const char on_old[], on_new[];

static void set_gate(unsigned vector, const char *code)
{
        uint16_t segment;
        __asm__("mov %%cs, %0" : "=r"(segment));
        gates[vector] = (struct gate){ (uint16_t)(uintptr_t)code, segment, 0x8e00,
                                       (uint16_t)((uintptr_t)code >> 16) };
}

static void take_interrupts(void)
{
        struct __attribute__((packed)) {
                uint16_t limit;
                uint32_t base;
        } idt = { sizeof(gates) - 1, (uint32_t)(uintptr_t)gates };
        set_gate(VECTOR, on_old);
        set_gate(VECTOR_NEW, on_new);
        __asm__ volatile("lidt %0" : : "m"(idt));
        write32(APIC + 0xf0, 0x1ff);
        out8(0x21, 0xff);
        out8(0xa1, 0xff);
}

/* Entry 1 of the table, which is the queue's. */
static void set_entry(uint8_t vector)
{
        write32(bar + MSIX + 16, APIC);
        write32(bar + MSIX + 20, 0);
        write32(bar + MSIX + 24, vector);
}

static void mask(unsigned masked)
{
        write32(bar + MSIX + 28, masked);
}

static uintptr_t find_disk(void)
{
        for (uintptr_t slot = 1; slot < 32; slot++)
                if (read32(ECAM + (slot << 15)) == DISK)
                        return ECAM + (slot << 15);
        leave(1);
        return 0;
}

static void enable_msix(uintptr_t config)
{
        uintptr_t at = config + (read32(config + 0x34) & 0xff);
        while ((read32(at) & 0xff) != 0x11)
                at = config + (read32(at) >> 8 & 0xff);
        set_entry(VECTOR);
        pending_bits = bar + MSIX + 16 * (1 + (read32(at) >> 16 & 0x7ff));
        write16(at + 2, 0x8000);
        mask(0);
}

static void start_disk(void)
{
        write8(bar + STATUS, 0);
        write8(bar + STATUS, 3);
        write32(bar + 8, 1); /* VIRTIO_F_VERSION_1 */
        write32(bar + 12, 1);
        write8(bar + STATUS, 11);
        write16(bar + QUEUE_SELECT, 0);
        write16(bar + QUEUE_SIZE, RING);
        write16(bar + QUEUE_VECTOR, 1);
        write32(bar + DESCRIPTORS, (uint32_t)(uintptr_t)descriptors);
        write32(bar + AVAILABLE, (uint32_t)(uintptr_t)&available);
        write32(bar + USED, (uint32_t)(uintptr_t)&used);
        write16(bar + QUEUE_ENABLE, 1);
        write8(bar + STATUS, 15);
        descriptors[0] = (struct descriptor){ (uintptr_t)&request, 16, 1, 1 };
        descriptors[1] = (struct descriptor){ (uintptr_t)sector, 512, 3, 2 };
        descriptors[2] = (struct descriptor){ (uintptr_t)&done, 1, 2, 0 };
}

/* Returns when the disk has answered. Interrupts are off meanwhile. */
static void read_sector(void)
{
        uint16_t before = used.index;
        __asm__ volatile("" ::: "memory");
        available.index++;
        write16(bar + NOTIFY, 0);
        while (used.index == before)
                __asm__ volatile("pause" ::: "memory");
}

static void wait_for(const volatile unsigned *count, unsigned wanted)
{
        while (*count != wanted)
                __asm__ volatile("sti; hlt; cli" ::: "memory");
}

static void wait_for_key(void)
{
        uint8_t status;
        do
                __asm__ volatile("inb $0x64, %0" : "=a"(status));
        while (!(status & 1));
}

void run(void)
{
        uintptr_t config = find_disk();
        bar = read32(config + 0x10) & ~15u;
        take_interrupts();
        start_disk();
        enable_msix(config);
        for (unsigned i = 1; i <= 3; i++) {
                read_sector();
                wait_for(&old_count, i);
        }
        mask(1);
        set_entry(VECTOR_NEW);
        mask(0);
        read_sector();
        wait_for(&new_count, 1);
        /* What comes while it is masked is told when it no longer is. */
        mask(1);
        read_sector();
        while (!(read32(pending_bits) & 2))
                ;
        __asm__ volatile("sti; nop; nop; cli" ::: "memory");
        if (new_count != 1)
                leave(2);
        mask(0);
        wait_for(&new_count, 2);
        out8(0x3f8, 'u');
        out8(0x3f8, '\n');
        wait_for_key();
        leave(old_count == 3 && new_count == 2 && sector[0] == 'x' ? 21 : 3);
}
