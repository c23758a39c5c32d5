#include "vmm/device/testdev.h"

#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/layout.h"
#include "vmm/snapshot/state.h"

#define PORT_REGISTER 0xe0
#define PORT_FLUSH    0xe4
#define PORT_LINES    0x2000
#define MEMORY_BASE   0xff000000ull
#define MEMORY_SIZE   0x10000u

struct testdev {
        struct device device;
        struct machine *machine;
        pthread_mutex_t lock;
        uint8_t value[4];
        uint8_t memory[MEMORY_SIZE];
};

static uint64_t get(const uint8_t *from, uint64_t size_of_all, uint64_t offset, unsigned size)
{
        uint64_t value = 0;
        if (offset + size <= size_of_all)
                memcpy(&value, from + offset, size);
        return value;
}

static void put(uint8_t *to, uint64_t size_of_all, uint64_t offset, unsigned size, uint64_t value)
{
        if (offset + size <= size_of_all)
                memcpy(to + offset, &value, size);
}

static uint64_t register_read(void *device, uint64_t offset, unsigned size)
{
        const struct testdev *t = device;
        return get(t->value, sizeof(t->value), offset, size);
}

static void register_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct testdev *t = device;
        put(t->value, sizeof(t->value), offset, size, value);
}

static void flush_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        (void)device, (void)offset, (void)size, (void)value;
}

static void line_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct testdev *t = device;
        (void)size;
        irq_line(&t->machine->irq, (unsigned)offset, value & 1);
}

static uint64_t store_read(void *device, uint64_t offset, unsigned size)
{
        const struct testdev *t = device;
        return get(t->memory, sizeof(t->memory), offset, size);
}

static void store_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct testdev *t = device;
        put(t->memory, sizeof(t->memory), offset, size, value);
}

static const struct bus_ops register_bus = { register_read, register_write };
static const struct bus_ops flush_bus = { NULL, flush_write };
static const struct bus_ops line_bus = { NULL, line_write };
static const struct bus_ops memory_bus = { store_read, store_write };

/* ---- in and out of a snapshot ---- */

static const struct state_field fields[] = {
        STATE_ARRAY(struct testdev, value, UINT8_MAX),
        STATE_ARRAY(struct testdev, memory, UINT8_MAX),
};

static int save(struct device *device, struct state_writer *w, struct err *err)
{
        struct testdev *t = container_of(device, struct testdev, device);
        (void)err;
        pthread_mutex_lock(&t->lock);
        state_put_fields(w, t, fields, ELEMENTS(fields));
        pthread_mutex_unlock(&t->lock);
        return 0;
}

static int restore(struct device *device, struct state_section *s, struct err *err)
{
        struct testdev *t = container_of(device, struct testdev, device);
        (void)err;
        state_get_fields(s, t, fields, ELEMENTS(fields));
        return 0;
}

static const struct state_ops state = { 1, save, restore };

static void destroy(struct device *device)
{
        struct testdev *t = container_of(device, struct testdev, device);
        pthread_mutex_destroy(&t->lock);
        free(t);
}

static void set_up_pics(struct machine *machine)
{
        static const struct {
                uint16_t port;
                uint8_t value;
        } writes[] = {
                { 0x20, 0x11 }, { 0x21, 0x08 }, { 0x21, 0x04 }, { 0x21, 0x01 }, /* ICW1 to 4 */
                { 0xa0, 0x11 }, { 0xa1, 0x70 }, { 0xa1, 0x02 }, { 0xa1, 0x01 },
                { 0x21, 0xfb }, { 0xa1, 0xf7 }, /* masks */
        };
        for (unsigned i = 0; i < ELEMENTS(writes); i++)
                bus_write(&machine->pio, writes[i].port, 1, writes[i].value);
}

int testdev_create(struct machine *machine, struct err *err)
{
        struct testdev *t = new0(struct testdev);
        t->machine = machine;
        pthread_mutex_init(&t->lock, NULL);
        machine_add_device(machine, &t->device, "testdev", destroy);
        t->device.state = &state;
        const struct bus_region ports[] = {
                { PORT_REGISTER, 4, &register_bus, t, &t->lock, "test register" },
                { PORT_FLUSH, 4, &flush_bus, t, &t->lock, "test page flush" },
                { PORT_LINES, LAYOUT_GSIS, &line_bus, t, &t->lock, "test interrupt lines" },
        };
        for (unsigned i = 0; i < 3; i++) {
                int r = bus_add(&machine->pio, &ports[i], err);
                if (r < 0)
                        return r;
        }
        const struct bus_region memory = { MEMORY_BASE, MEMORY_SIZE, &memory_bus,
                                           t,           &t->lock,    "test memory" };
        set_up_pics(machine);
        return bus_add(&machine->mmio, &memory, err);
}
