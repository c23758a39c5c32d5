#include "vmm/device/power.h"

#include <string.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "vmm/layout.h"
#include "vmm/snapshot/state.h"

#define PM_TIMER_HZ        3579545ull
#define STATUS_BUTTON      0x0100u
#define CONTROL_SCI        0x0001u
#define CONTROL_SLEEP      0x2000u
#define CONTROL_TYPE(v)    ((v) >> 10 & 7)
#define GPE_SIZE           4
#define PANIC_PANICKED     1
#define PANIC_CRASH_LOADED 2

struct power {
        struct device device;
        struct machine *machine;
        pthread_mutex_t lock;
        uint16_t status, enable, control;
        uint8_t gpe[GPE_SIZE];
        int64_t epoch_ns; /* when the PM timer was 0 */
        bool raised;
};

static void update(struct power *p)
{
        uint16_t events, enabled;
        memcpy(&events, p->gpe, sizeof(events));
        memcpy(&enabled, p->gpe + GPE_SIZE / 2, sizeof(enabled));
        bool raised = (p->status & p->enable) || (events & enabled);
        if (raised == p->raised)
                return;
        p->raised = raised;
        irq_line(&p->machine->irq, LAYOUT_IRQ_SCI, raised);
}

static uint32_t pm_timer(const struct power *p)
{
        uint64_t ns = (uint64_t)(clock_monotonic_ns() - p->epoch_ns);
        uint64_t n = (uint64_t)((unsigned __int128)ns * PM_TIMER_HZ / NS_PER_S);
        return (uint32_t)n & 0xffffff; /* 24 bits: FADT says no TMR_VAL_EXT */
}

static uint64_t pm_read(void *device, uint64_t offset, unsigned size)
{
        const struct power *p = device;
        uint64_t registers = p->status | (uint64_t)p->enable << 16 | (uint64_t)p->control << 32;
        if (offset >= POWER_PM_TIMER)
                return (uint64_t)pm_timer(p) >> 8 * (offset - POWER_PM_TIMER);
        return registers >> 8 * offset & size_mask(size);
}

static void pm_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct power *p = device;
        (void)size;
        if (offset == POWER_PM_EVENT) {
                p->status &= (uint16_t)~value; /* written ones clear */
                if (size == 4)
                        p->enable = (uint16_t)(value >> 16);
        } else if (offset == POWER_PM_EVENT + 2) {
                p->enable = (uint16_t)value;
        } else if (offset == POWER_PM_CONTROL) {
                p->control = (uint16_t)value & ~CONTROL_SLEEP;
                if (value & CONTROL_SLEEP && CONTROL_TYPE(value) == POWER_SLEEP_S5)
                        machine_end(p->machine, MACHINE_POWERED_OFF, 0, NULL);
        }
        update(p);
}

static uint64_t gpe_read(void *device, uint64_t offset, unsigned size)
{
        const struct power *p = device;
        uint64_t value = 0;
        for (unsigned i = 0; i < size && offset + i < GPE_SIZE; i++)
                value |= (uint64_t)p->gpe[offset + i] << 8 * i;
        return value;
}

static void gpe_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct power *p = device;
        /* Status in the lower half, where written ones clear; what is enabled in the upper. */
        for (unsigned i = 0; i < size && offset + i < GPE_SIZE; i++) {
                uint8_t byte = (uint8_t)(value >> 8 * i), *at = &p->gpe[offset + i];
                *at = offset + i < GPE_SIZE / 2 ? (uint8_t)(*at & ~byte) : byte;
        }
        update(p);
}

static uint64_t panic_read(void *device, uint64_t offset, unsigned size)
{
        (void)device, (void)offset, (void)size;
        return PANIC_PANICKED | PANIC_CRASH_LOADED;
}

static void panic_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct power *p = device;
        (void)offset, (void)size;
        /* A guest with a crash kernel loaded goes on into it. */
        if (value & PANIC_PANICKED)
                machine_end(p->machine, MACHINE_PANICKED, 0, NULL);
}

static void debug_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct power *p = device;
        (void)offset, (void)size;
        machine_end(p->machine, MACHINE_DEBUG_EXIT, (unsigned)value, NULL);
}

static const struct bus_ops pm_bus = { pm_read, pm_write };
static const struct bus_ops gpe_bus = { gpe_read, gpe_write };
static const struct bus_ops panic_bus = { panic_read, panic_write };
static const struct bus_ops debug_bus = { NULL, debug_write };

/* ---- in and out of a snapshot ---- */

static const struct state_field fields[] = {
        STATE_FIELD(struct power, status, UINT16_MAX),
        STATE_FIELD(struct power, enable, UINT16_MAX),
        STATE_FIELD(struct power, control, UINT16_MAX),
        STATE_ARRAY(struct power, gpe, UINT8_MAX),
        STATE_MOMENT(struct power, epoch_ns),
};

static int save(struct device *device, struct state_writer *w, struct err *err)
{
        struct power *p = container_of(device, struct power, device);
        (void)err;
        pthread_mutex_lock(&p->lock);
        state_put_fields(w, p, fields, ELEMENTS(fields));
        pthread_mutex_unlock(&p->lock);
        return 0;
}

static int restore(struct device *device, struct state_section *s, struct err *err)
{
        struct power *p = container_of(device, struct power, device);
        state_get_fields(s, p, fields, ELEMENTS(fields));
        int r = state_end(s, err);
        if (r == 0)
                update(p);
        return r;
}

static const struct state_ops state = { 1, save, restore };

static void destroy(struct device *device)
{
        struct power *p = container_of(device, struct power, device);
        pthread_mutex_destroy(&p->lock);
        free(p);
}

int power_create(struct machine *machine, bool debug_exit, struct power **ret, struct err *err)
{
        struct power *p = new0(struct power);
        p->machine = machine;
        p->epoch_ns = clock_monotonic_ns();
        p->control = CONTROL_SCI; /* ACPI mode from the start: there is no SMM to enter it by */
        pthread_mutex_init(&p->lock, NULL);
        machine_add_device(machine, &p->device, "power", destroy);
        p->device.state = &state;
        const struct bus_region regions[] = {
                { LAYOUT_PORT_PM, POWER_PM_SIZE, &pm_bus, p, &p->lock, "ACPI PM" },
                { LAYOUT_PORT_GPE, GPE_SIZE, &gpe_bus, p, &p->lock, "ACPI GPE" },
                { LAYOUT_PORT_PVPANIC, 1, &panic_bus, p, &p->lock, "pvpanic" },
                { LAYOUT_PORT_DEBUG, 4, &debug_bus, p, &p->lock, "debug exit" },
        };
        unsigned length = debug_exit ? 4 : 3;
        for (unsigned i = 0; i < length; i++) {
                int r = bus_add(&machine->pio, &regions[i], err);
                if (r < 0)
                        return r;
        }
        *ret = p;
        return 0;
}

void power_button(struct power *p)
{
        pthread_mutex_lock(&p->lock);
        p->status |= STATUS_BUTTON;
        update(p);
        pthread_mutex_unlock(&p->lock);
}

void power_event(struct power *p, unsigned event)
{
        pthread_mutex_lock(&p->lock);
        p->gpe[event / 8] |= (uint8_t)(1u << event % 8);
        update(p);
        pthread_mutex_unlock(&p->lock);
}
