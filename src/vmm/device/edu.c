#include "vmm/device/edu.h"

#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/pci/pci.h"
#include "vmm/snapshot/state.h"

#define VENDOR         0x1234
#define DEVICE         0x11e8
#define IDENTIFICATION 0x010000edu
#define BAR_BYTES      (1u << 20)
#define BUFFER_AT      0x40000u
#define BUFFER_BYTES   4096u
#define DMA_MASK       0x0fffffffull /* it drives 28 address lines */

#define STATUS_INTERRUPT    0x80u /* after a factorial */
#define INTERRUPT_FACTORIAL 0x1u
#define INTERRUPT_DMA       0x100u
#define COMMAND_START       1u
#define COMMAND_TO_MEMORY   2u
#define COMMAND_INTERRUPT   4u
#define FACTORIAL_ZERO      34 /* from here on a multiple of 2^32 */
#define CAPABILITY_MSI      5
#define MSI_ENABLE          1u
#define MSI_64              0x80u
#define MSI_ADDRESS         4
#define MSI_DATA            12

enum {
        AT_IDENTIFICATION = 0,
        AT_LIVENESS = 4,
        AT_FACTORIAL = 8,
        AT_STATUS = 0x20,
        AT_INTERRUPT = 0x24,
        AT_RAISE = 0x60,
        AT_ACKNOWLEDGE = 0x64,
        AT_SOURCE = 0x80,
        AT_DESTINATION = 0x88,
        AT_COUNT = 0x90,
        AT_COMMAND = 0x98,
};

struct edu {
        struct device device;
        struct machine *machine;
        struct pci_function function;
        struct dma dma;
        pthread_mutex_t lock;
        unsigned msi; /* offset of the capability */
        uint32_t liveness, factorial, status, interrupt;
        uint64_t source, destination, count;
        uint8_t buffer[BUFFER_BYTES];
};

static void update_line(struct edu *e, bool fired)
{
        const uint8_t *msi = e->function.config + e->msi;
        uint64_t address;
        uint16_t data;
        if (!(msi[2] & MSI_ENABLE)) {
                pci_interrupt(&e->function, e->interrupt);
                return;
        }
        memcpy(&address, msi + MSI_ADDRESS, sizeof(address));
        memcpy(&data, msi + MSI_DATA, sizeof(data));
        if (fired)
                irq_message(&e->machine->irq, pci_source(&e->function), address, data);
}

static void raise(struct edu *e, uint32_t bits)
{
        e->interrupt |= bits;
        update_line(e, bits);
}

static uint32_t factorial(uint32_t n)
{
        uint32_t value = n < FACTORIAL_ZERO;
        for (uint32_t i = 2; value && i <= n; i++)
                value *= i;
        return value;
}

/* The place in the buffer that DMA means; NULL where it reaches beyond. */
static uint8_t *inside(struct edu *e, uint64_t address)
{
        uint64_t offset = address - BUFFER_AT;
        if (offset >= BUFFER_BYTES || e->count > BUFFER_BYTES - offset)
                return NULL;
        return e->buffer + offset;
}

static void copy(struct edu *e, uint32_t command)
{
        uint8_t *mine = inside(e, command & COMMAND_TO_MEMORY ? e->source : e->destination);
        if (!(command & COMMAND_START) || !mine)
                return;
        if (command & COMMAND_TO_MEMORY)
                (void)dma_write(&e->dma, e->destination & DMA_MASK, mine, e->count);
        else
                (void)dma_read(&e->dma, e->source & DMA_MASK, mine, e->count);
        if (command & COMMAND_INTERRUPT)
                raise(e, INTERRUPT_DMA);
}

static uint64_t registers_read(void *device, uint64_t offset, unsigned size)
{
        const struct edu *e = device;
        if (size < 4)
                return size_mask(size);
        switch (offset) {
        case AT_IDENTIFICATION:
                return IDENTIFICATION;
        case AT_LIVENESS:
                return e->liveness;
        case AT_FACTORIAL:
                return e->factorial;
        case AT_STATUS:
                return e->status;
        case AT_INTERRUPT:
                return e->interrupt;
        case AT_SOURCE:
                return e->source;
        case AT_DESTINATION:
                return e->destination;
        case AT_COUNT:
                return e->count;
        case AT_COMMAND:
                return 0; /* done */
        default:
                return size_mask(size);
        }
}

static void registers_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct edu *e = device;
        if (size < 4)
                return;
        switch (offset) {
        case AT_LIVENESS:
                e->liveness = ~(uint32_t)value;
                break;
        case AT_FACTORIAL:
                e->factorial = factorial((uint32_t)value);
                if (e->status & STATUS_INTERRUPT)
                        raise(e, INTERRUPT_FACTORIAL);
                break;
        case AT_STATUS:
                e->status = (uint32_t)value & STATUS_INTERRUPT;
                break;
        case AT_RAISE:
                raise(e, (uint32_t)value);
                break;
        case AT_ACKNOWLEDGE:
                e->interrupt &= ~(uint32_t)value;
                update_line(e, false);
                break;
        case AT_SOURCE:
                e->source = value;
                break;
        case AT_DESTINATION:
                e->destination = value;
                break;
        case AT_COUNT:
                e->count = value;
                break;
        case AT_COMMAND:
                copy(e, (uint32_t)value);
                break;
        default:
                break;
        }
}

/* Under the device's own lock, whatever the region: the bus may move it. */
static uint64_t locked_read(void *device, uint64_t offset, unsigned size)
{
        struct edu *e = device;
        pthread_mutex_lock(&e->lock);
        uint64_t value = registers_read(e, offset, size);
        pthread_mutex_unlock(&e->lock);
        return value;
}

static void locked_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct edu *e = device;
        pthread_mutex_lock(&e->lock);
        registers_write(e, offset, size, value);
        pthread_mutex_unlock(&e->lock);
}

static const struct bus_ops bar_bus = { locked_read, locked_write };

/* ---- in and out of a snapshot ---- */

static const struct state_field fields[] = {
        STATE_FIELD(struct edu, liveness, UINT32_MAX),
        STATE_FIELD(struct edu, factorial, UINT32_MAX),
        STATE_FIELD(struct edu, status, UINT32_MAX),
        STATE_FIELD(struct edu, interrupt, UINT32_MAX),
        STATE_FIELD(struct edu, source, UINT64_MAX),
        STATE_FIELD(struct edu, destination, UINT64_MAX),
        STATE_FIELD(struct edu, count, UINT64_MAX),
        STATE_ARRAY(struct edu, buffer, UINT8_MAX),
};

static int save(struct device *device, struct state_writer *w, struct err *err)
{
        struct edu *e = container_of(device, struct edu, device);
        (void)err;
        pthread_mutex_lock(&e->lock);
        state_put_fields(w, e, fields, ELEMENTS(fields));
        pthread_mutex_unlock(&e->lock);
        return 0;
}

/* Its line is the bus's to restore. */
static int restore(struct device *device, struct state_section *s, struct err *err)
{
        (void)err;
        state_get_fields(s, container_of(device, struct edu, device), fields, ELEMENTS(fields));
        return 0;
}

static const struct state_ops state = { 1, save, restore };

static void destroy(struct device *device)
{
        struct edu *e = container_of(device, struct edu, device);
        pci_remove(&e->function);
        pci_function_finish(&e->function);
        pthread_mutex_destroy(&e->lock);
        free(e);
}

/* One message, addresses of 64 bits. */
static void add_msi(struct edu *e)
{
        static const uint8_t body[12] = { MSI_64 };
        struct pci_function *f = &e->function;
        e->msi = pci_function_capability(f, CAPABILITY_MSI, body, sizeof(body));
        f->writable[e->msi + 2] = MSI_ENABLE;
        memset(f->writable + e->msi + MSI_ADDRESS, 0xff, 10);
        f->writable[e->msi + MSI_ADDRESS] = 0xfc;
}

int edu_create(struct machine *machine, struct err *err)
{
        struct edu *e = new0(struct edu);
        e->machine = machine;
        pthread_mutex_init(&e->lock, NULL);
        pci_function_init(&e->function, "edu",
                          &(struct pci_identity){ VENDOR, DEVICE, 0x1af4, 0x1100, 0x10, 0x00ff00 });
        pci_function_bar(&e->function, 0, BAR_BYTES, &bar_bus, e);
        add_msi(e);
        machine_add_device(machine, &e->device, "edu", destroy);
        e->device.state = &state;
        int r = pci_add(machine, &e->function, 0, err);
        e->dma = (struct dma){ &machine->memory, machine->iommu, pci_source(&e->function) };
        return r;
}
