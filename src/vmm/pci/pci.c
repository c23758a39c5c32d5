#include "vmm/pci/pci.h"

#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/layout.h"
#include "vmm/pci/bus.h"

#define PORT_ADDRESS     0xcf8
#define PORT_DATA        0xcfc
#define COMMAND_MEMORY   0x0002
#define COMMAND_NO_INTX  0x0400
#define STATUS           0x06
#define STATUS_INTERRUPT 0x08
#define STATUS_CAPS      0x10
#define BAR_FIRST        0x10
#define CAPABILITIES     0x34
#define INTERRUPT_LINE   0x3c
#define INTERRUPT_PIN    0x3d
#define CAPABILITY_FIRST 0x40
#define BAR_MEMORY_64    0x04
#define CAPABILITY_MSIX  0x11
#define MSIX_ENABLE      0x8000
#define MSIX_MASK_ALL    0x4000
#define ENTRY_MASKED     1u
#define KEPT_VECTORS     4u /* for what comes later; a network card of one pair of queues */

static uint64_t get(const uint8_t *bytes, unsigned size)
{
        uint64_t value = 0;
        memcpy(&value, bytes, size);
        return value;
}

static void put(uint8_t *bytes, unsigned size, uint64_t value)
{
        memcpy(bytes, &value, size);
}

/* ---- building a function ---- */

void pci_function_init(struct pci_function *f, const char *name, const struct pci_identity *id)
{
        memset(f, 0, sizeof(*f));
        f->name = name;
        put(f->config + 0x00, 2, id->vendor);
        put(f->config + 0x02, 2, id->device);
        put(f->config + 0x08, 4, (uint64_t)id->class_code << 8 | id->revision);
        put(f->config + 0x2c, 2, id->subsystem_vendor);
        put(f->config + 0x2e, 2, id->subsystem);
        /* memory and I/O decoding, bus master, INTx off */
        put(f->writable + PCI_COMMAND, 2, 0x0407);
        f->writable[INTERRUPT_LINE] = 0xff;
        f->writable[0x0c] = 0xff; /* cache line size: nothing but storage */
        f->capabilities_end = CAPABILITY_FIRST;
        pthread_mutex_init(&f->msix_lock, NULL);
}

void pci_function_finish(struct pci_function *f)
{
        pthread_mutex_destroy(&f->msix_lock);
}

void pci_function_bar(struct pci_function *f, unsigned bar, uint64_t size,
                      const struct bus_ops *ops, void *device)
{
        f->bars[bar] = (struct pci_bar){ .size = size, .ops = ops, .device = device };
        f->config[BAR_FIRST + 4 * bar] = BAR_MEMORY_64;
        put(f->writable + BAR_FIRST + 4 * bar, 8, ~(size - 1));
}

unsigned pci_function_capability(struct pci_function *f, uint8_t id, const void *body, size_t size)
{
        unsigned at = f->capabilities_end;
        f->config[at] = id;
        memcpy(f->config + at + 2, body, size);
        if (f->last_capability)
                f->config[f->last_capability + 1] = (uint8_t)at;
        else
                f->config[CAPABILITIES] = (uint8_t)at;
        f->last_capability = (uint8_t)at;
        f->config[STATUS] |= STATUS_CAPS;
        f->capabilities_end = (unsigned)(at + 2 + size + 3) & ~3u;
        return at;
}

void pci_function_msix(struct pci_function *f, unsigned length, unsigned bar, uint32_t offset)
{
        uint8_t body[10];
        put(body, 2, length - 1);
        put(body + 2, 4, offset | bar);
        put(body + 6, 4, (offset + length * 16) | bar);
        f->msix_capability = pci_function_capability(f, CAPABILITY_MSIX, body, sizeof(body));
        put(f->writable + f->msix_capability + 2, 2, MSIX_ENABLE | MSIX_MASK_ALL);
        f->msix_length = length;
        for (unsigned i = 0; i < length; i++)
                f->msix[i].control = ENTRY_MASKED;
}

/* ---- interrupts ---- */

static unsigned msix_control(const struct pci_function *f)
{
        return (unsigned)get(f->config + f->msix_capability + 2, 2);
}

bool pci_msix_enabled(const struct pci_function *f)
{
        return f->msix_capability && msix_control(f) & MSIX_ENABLE;
}

/* Lock held. */
static bool msix_open(const struct pci_function *f, const struct pci_msix_entry *e)
{
        unsigned control = msix_control(f);
        return control & MSIX_ENABLE && !(control & MSIX_MASK_ALL) && !(e->control & ENTRY_MASKED);
}

/* Lock held. */
static void msix_try(struct pci_function *f, struct pci_msix_entry *e)
{
        struct pci *pci = f->pci;
        const struct irq *irq = &pci->machine->irq;
        if (!e->pending || !msix_open(f, e))
                return;
        e->pending = false;
        atomic_fetch_add_explicit(&pci->messages, 1, memory_order_relaxed);
        if (irq_send_prepared(irq, &e->route, e->address, e->data))
                atomic_fetch_add_explicit(&pci->prepared, 1, memory_order_relaxed);
        else
                irq_message(irq, pci_source(f), e->address, e->data);
}

/* The guest has changed it, or what masks it. Lock held. */
static void msix_changed(struct pci_function *f, struct pci_msix_entry *e)
{
        if (msix_open(f, e))
                irq_prepare(&f->pci->machine->irq, &e->route, e->address, e->data);
        msix_try(f, e);
}

void pci_msix_fire(struct pci_function *f, unsigned vector)
{
        if (vector >= f->msix_length || !pci_msix_enabled(f))
                return;
        pthread_mutex_lock(&f->msix_lock);
        f->msix[vector].pending = true;
        msix_try(f, &f->msix[vector]);
        pthread_mutex_unlock(&f->msix_lock);
}

void pci_msix_unmasked(struct pci_function *f)
{
        pthread_mutex_lock(&f->msix_lock);
        for (unsigned i = 0; i < f->msix_length; i++)
                msix_changed(f, &f->msix[i]);
        pthread_mutex_unlock(&f->msix_lock);
}

static void msix_forget(struct pci_function *f)
{
        pthread_mutex_lock(&f->msix_lock);
        for (unsigned i = 0; i < f->msix_length; i++)
                irq_unprepare(&f->pci->machine->irq, &f->msix[i].route);
        pthread_mutex_unlock(&f->msix_lock);
}

uint64_t pci_msix_read(struct pci_function *f, uint64_t offset, unsigned size)
{
        uint64_t value = 0;
        pthread_mutex_lock(&f->msix_lock);
        if (offset < f->msix_length * 16ull) {
                const struct pci_msix_entry *e = &f->msix[offset / 16];
                uint8_t bytes[16];
                put(bytes, 8, e->address);
                put(bytes + 8, 4, e->data);
                put(bytes + 12, 4, e->control);
                if (offset % 16 + size <= 16)
                        value = get(bytes + offset % 16, size);
        } else {
                uint64_t first = (offset - f->msix_length * 16ull) * 8;
                for (unsigned i = 0; i < size * 8 && first + i < f->msix_length; i++)
                        value |= (uint64_t)f->msix[first + i].pending << i;
        }
        pthread_mutex_unlock(&f->msix_lock);
        return value;
}

void pci_msix_write(struct pci_function *f, uint64_t offset, unsigned size, uint64_t value)
{
        if (offset >= f->msix_length * 16ull || offset % 16 + size > 16 || size < 4)
                return;
        pthread_mutex_lock(&f->msix_lock);
        struct pci_msix_entry *e = &f->msix[offset / 16];
        uint8_t bytes[16];
        put(bytes, 8, e->address);
        put(bytes + 8, 4, e->data);
        put(bytes + 12, 4, e->control);
        put(bytes + offset % 16, size, value);
        e->address = get(bytes, 8);
        e->data = (uint32_t)get(bytes + 8, 4);
        e->control = (uint32_t)get(bytes + 12, 4) & ENTRY_MASKED;
        msix_changed(f, e);
        pthread_mutex_unlock(&f->msix_lock);
}

static unsigned gsi_of(const struct pci_function *f)
{
        return LAYOUT_IRQ_PCI_FIRST + f->slot % 4;
}

/* INTx is shared by every fourth slot: the line is up while any of them wants it. */
void pci_update_line(struct pci *pci, unsigned slot)
{
        bool raised = false;
        pthread_mutex_lock(&pci->lines);
        for (unsigned i = slot % 4; i < PCI_SLOTS; i += 4) {
                const struct pci_function *f = pci->slots[i];
                if (f && atomic_load(&f->line) &&
                    !(get(f->config + PCI_COMMAND, 2) & COMMAND_NO_INTX))
                        raised = true;
        }
        irq_line(&pci->machine->irq, LAYOUT_IRQ_PCI_FIRST + slot % 4, raised);
        pthread_mutex_unlock(&pci->lines);
}

static void set_slot(struct pci *pci, unsigned slot, struct pci_function *f)
{
        pthread_mutex_lock(&pci->lines);
        pci->slots[slot] = f;
        pthread_mutex_unlock(&pci->lines);
}

void pci_interrupt(struct pci_function *f, bool raised)
{
        if (atomic_exchange(&f->line, raised) == raised)
                return;
        pci_update_line(f->pci, f->slot);
}

/* ---- configuration ---- */

static void map_bar(struct pci_function *f, unsigned index, bool decode)
{
        struct pci_bar *bar = &f->bars[index];
        struct machine *m = f->pci->machine;
        uint64_t at = get(f->config + BAR_FIRST + 4 * index, 8) & ~15ull;
        if (!decode)
                at = 0;
        if (at == bar->mapped)
                return;
        if (bar->mapped)
                bus_remove(&m->mmio, bar->device, bar->mapped);
        bar->mapped = 0;
        /* Over memory or another device (as while a guest sizes it with decoding
         * on) it answers nowhere. */
        if (!at || memory_at(&m->memory, gpa(at), 1))
                return;
        const struct bus_region region = { at, bar->size, bar->ops, bar->device, NULL, f->name };
        if (bus_add(&m->mmio, &region, NULL) == 0)
                bar->mapped = at;
}

void pci_map_bars(struct pci_function *f)
{
        bool decode = get(f->config + PCI_COMMAND, 2) & COMMAND_MEMORY;
        for (unsigned i = 0; i < PCI_BARS; i++)
                if (f->bars[i].size)
                        map_bar(f, i, decode);
}

static uint64_t config_read(struct pci *pci, unsigned slot, unsigned offset, unsigned size)
{
        pthread_mutex_lock(&pci->lock);
        struct pci_function *f = pci->slots[slot];
        uint64_t value = size_mask(size);
        if (f && offset + size <= PCI_CONFIG_SIZE) {
                if (f->config_read)
                        f->config_read(f, offset, size);
                value = get(f->config + offset, size);
                if (offset <= STATUS && offset + size > STATUS && atomic_load(&f->line))
                        value |= (uint64_t)STATUS_INTERRUPT << 8 * (STATUS - offset);
        } else if (f) {
                value = 0; /* no extended capabilities */
        }
        pthread_mutex_unlock(&pci->lock);
        return value;
}

static void config_write(struct pci *pci, unsigned slot, unsigned offset, unsigned size,
                         uint64_t value)
{
        pthread_mutex_lock(&pci->lock);
        struct pci_function *f = pci->slots[slot];
        if (f && offset + size <= PCI_CONFIG_SIZE) {
                for (unsigned i = 0; i < size; i++) {
                        uint8_t mask = f->writable[offset + i];
                        uint8_t byte = (uint8_t)(value >> 8 * i);
                        f->config[offset + i] = (uint8_t)((f->config[offset + i] & ~mask) |
                                                          (byte & mask));
                }
                if (offset < BAR_FIRST + 4 * PCI_BARS)
                        pci_map_bars(f);
                if (offset <= PCI_COMMAND + 1)
                        pci_update_line(pci, slot);
                if (f->msix_capability && offset / 4 == f->msix_capability / 4)
                        pci_msix_unmasked(f);
                if (f->config_written)
                        f->config_written(f, offset, size);
        }
        pthread_mutex_unlock(&pci->lock);
}

static uint64_t ecam_read(void *device, uint64_t offset, unsigned size)
{
        unsigned slot = offset >> 15 & 31;
        if (offset >> 12 & 7)
                return size_mask(size);
        return config_read(device, slot, offset & 0xfff, size);
}

static void ecam_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        if (!(offset >> 12 & 7))
                config_write(device, offset >> 15 & 31, offset & 0xfff, size, value);
}

static uint64_t address_read(void *device, uint64_t offset, unsigned size)
{
        const struct pci *pci = device;
        return offset == 0 && size == 4 ? pci->address : 0;
}

static void address_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct pci *pci = device;
        if (offset == 0 && size == 4)
                pci->address = (uint32_t)value;
        else if (offset == LAYOUT_PORT_RESET - PORT_ADDRESS && value & 4)
                machine_end(pci->machine, MACHINE_RESET, 0, NULL);
}

/* `offset` in the data port. The lowest two bits of the address, which the specification has as
 * zero, count too: test kernels that know QEMU's bridge only write them. */
static bool data_target(const struct pci *pci, uint64_t offset, unsigned *ret_slot,
                        unsigned *ret_offset)
{
        *ret_slot = pci->address >> 11 & 31;
        *ret_offset = (pci->address & 0xff) | (unsigned)offset;
        return pci->address >> 31 && !(pci->address >> 16 & 0xff) && !(pci->address >> 8 & 7);
}

static uint64_t data_read(void *device, uint64_t offset, unsigned size)
{
        struct pci *pci = device;
        unsigned slot, at;
        return data_target(pci, offset, &slot, &at) ? config_read(pci, slot, at, size)
                                                    : size_mask(size);
}

static void data_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct pci *pci = device;
        unsigned slot, at;
        if (data_target(pci, offset, &slot, &at))
                config_write(pci, slot, at, size, value);
}

static const struct bus_ops ecam_bus = { ecam_read, ecam_write };
static const struct bus_ops address_bus = { address_read, address_write };
static const struct bus_ops data_bus = { data_read, data_write };

/* ---- the bus ---- */

static void destroy(struct device *device)
{
        struct pci *pci = container_of(device, struct pci, device);
        pci->machine->pci = NULL;
        pci_function_finish(&pci->bridge);
        pthread_mutex_destroy(&pci->lock);
        pthread_mutex_destroy(&pci->lines);
        free(pci);
}

static void counters(struct device *device, counter_fn *take, void *arg)
{
        struct pci *pci = container_of(device, struct pci, device);
        take(arg, "messages", atomic_load(&pci->messages));
        take(arg, "messages_by_descriptor", atomic_load(&pci->prepared));
}

int pci_create(struct machine *machine, struct err *err)
{
        struct pci *pci = new0(struct pci);
        pci->machine = machine;
        pci->window_next = LAYOUT_PCI_WINDOW;
        pthread_mutex_init(&pci->lock, NULL);
        pthread_mutex_init(&pci->lines, NULL);
        pci_function_init(&pci->bridge, "PCI host bridge",
                          &(struct pci_identity){ 0x8086, 0x0d57, 0, 0, 0, 0x060000 });
        pci->bridge.pci = pci;
        pci->slots[0] = &pci->bridge;
        machine_add_device(machine, &pci->device, "pci", destroy);
        pci->device.counters = counters;
        pci->device.state = &pci_state;
        machine->pci = pci;
        const struct bus_region ports[] = {
                { PORT_ADDRESS, 4, &address_bus, pci, NULL, "PCI address" },
                { PORT_DATA, 4, &data_bus, pci, NULL, "PCI data" },
        };
        const struct bus_region ecam = {
                LAYOUT_ECAM, LAYOUT_ECAM_SIZE, &ecam_bus, pci, NULL, "ECAM"
        };
        int r = bus_add(&machine->pio, &ports[0], err);
        if (r == 0)
                r = bus_add(&machine->pio, &ports[1], err);
        return r < 0 ? r : bus_add(&machine->mmio, &ecam, err);
}

static int place_bars(struct pci *pci, struct pci_function *f, struct err *err)
{
        for (unsigned i = 0; i < PCI_BARS; i++) {
                uint64_t size = f->bars[i].size;
                if (!size)
                        continue;
                uint64_t at = (pci->window_next + size - 1) & ~(size - 1);
                if (at + size > LAYOUT_PCI_WINDOW + LAYOUT_PCI_WINDOW_SIZE)
                        return err_plain(err, ENOSPC, "%s: no room left in the PCI window",
                                         f->name);
                put(f->config + BAR_FIRST + 4 * i, 8, at | BAR_MEMORY_64);
                pci->window_next = at + size;
        }
        return 0;
}

int pci_keep_slots(struct machine *machine, unsigned length, struct err *err)
{
        machine->pci->kept = length;
        return irq_expect(&machine->irq, length * KEPT_VECTORS, err);
}

int pci_add(struct machine *machine, struct pci_function *f, unsigned slot, struct err *err)
{
        struct pci *pci = machine->pci;
        pthread_mutex_lock(&pci->lock);
        bool late = slot;
        unsigned slots = PCI_SLOTS - (late ? 0 : pci->kept);
        if (!late)
                for (slot = 1; slot < slots && pci->slots[slot]; slot++)
                        ;
        int r = 0;
        if (slot >= slots)
                r = err_plain(err, ENOSPC, "%s: all %u PCI slots are taken", f->name, slots);
        else if (pci->slots[slot])
                r = err_plain(err, EEXIST, "%s: PCI slot %u is taken by %s", f->name, slot,
                              pci->slots[slot]->name);
        if (r == 0 && !late)
                r = place_bars(pci, f, err);
        if (r == 0 && !late)
                r = irq_expect(&machine->irq, f->msix_length, err);
        if (r == 0) {
                f->pci = pci;
                f->slot = slot;
                f->config[INTERRUPT_PIN] = 1;
                f->config[INTERRUPT_LINE] = (uint8_t)gsi_of(f);
                set_slot(pci, slot, f);
                /* As a firmware leaves it; or as it is plugged in. */
                put(f->config + PCI_COMMAND, 2, late ? 0 : COMMAND_MEMORY);
                pci_map_bars(f);
        }
        pthread_mutex_unlock(&pci->lock);
        return r;
}

void pci_remove(struct pci_function *f)
{
        struct pci *pci = f->pci;
        if (!pci)
                return;
        pthread_mutex_lock(&pci->lock);
        put(f->config + PCI_COMMAND, 2, 0);
        pci_map_bars(f);
        set_slot(pci, f->slot, NULL);
        atomic_store(&f->line, false);
        pci_update_line(pci, f->slot);
        msix_forget(f);
        f->pci = NULL;
        pthread_mutex_unlock(&pci->lock);
}
