#include "vmm/device/pit.h"

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "vmm/layout.h"
#include "vmm/snapshot/state.h"
#include "vmm/timer.h"

#define PIT_HZ        1193182ull
#define TICKS_MAX     (1ull << 52) /* a century, which fits nanoseconds */
#define PORT_PIT      0x40
#define PORT_SPEAKER  0x61
#define ACCESS_LATCH  0
#define ACCESS_LOW    1
#define ACCESS_HIGH   2
#define ACCESS_BOTH   3
#define SPEAKER_GATE  1
#define SPEAKER_OUT   0x20
#define SPEAKER_CLOCK 0x10 /* toggles with refresh, every 15 µs */

struct channel {
        unsigned mode, access;
        uint32_t reload;  /* 1 to 65536 */
        int64_t start_ns; /* when counting began; 0: no count loaded */
        uint16_t latched;
        uint8_t status;
        bool has_latch, has_status;
        bool high_next_read, high_next_write;
        uint8_t low_written;
};

struct pit {
        struct device device;
        struct machine *machine;
        struct timer *timer;
        pthread_mutex_t lock;
        struct channel channels[3];
        uint8_t speaker;
        uint64_t fired; /* periods of channel 0 already signalled */
};

static uint64_t ticks(int64_t ns)
{
        return (uint64_t)((unsigned __int128)(uint64_t)ns * PIT_HZ / NS_PER_S);
}

static int64_t tick_time(uint64_t n)
{
        /* The first nanosecond at which `n` ticks have passed. */
        return (int64_t)(((unsigned __int128)n * NS_PER_S + PIT_HZ - 1) / PIT_HZ);
}

static bool periodic(const struct channel *c)
{
        return c->mode == 2 || c->mode == 3;
}

static uint64_t elapsed(const struct channel *c)
{
        return c->start_ns ? ticks(clock_monotonic_ns() - c->start_ns) : 0;
}

static uint16_t count(const struct channel *c)
{
        uint64_t n = elapsed(c);
        if (c->mode == 3)
                return (uint16_t)(c->reload - n * 2 % c->reload);
        if (c->mode == 2)
                return (uint16_t)(c->reload - n % c->reload);
        return (uint16_t)(c->reload - n); /* wraps and goes on */
}

static bool output(const struct channel *c)
{
        if (!c->start_ns)
                return c->mode != 0;
        uint64_t n = elapsed(c);
        if (c->mode == 2)
                return n % c->reload != c->reload - 1;
        if (c->mode == 3)
                return n % c->reload < (c->reload + 1) / 2;
        return c->mode == 4 ? n != c->reload : n >= c->reload;
}

/* The timer at the next end of channel 0's count. */
static void arm(struct pit *p)
{
        const struct channel *c = &p->channels[0];
        if (!c->start_ns || (!periodic(c) && p->fired)) {
                timer_arm(p->timer, 0);
                return;
        }
        timer_arm(p->timer, c->start_ns + tick_time((p->fired + 1) * c->reload));
}

static void expired(void *arg)
{
        struct pit *p = arg;
        pthread_mutex_lock(&p->lock);
        const struct channel *c = &p->channels[0];
        uint64_t periods = c->start_ns ? elapsed(c) / c->reload : 0;
        if (periods > p->fired) {
                p->fired = periods; /* what was missed is gone, as on a busy PC */
                irq_pulse(&p->machine->irq, LAYOUT_IRQ_PIT);
        }
        arm(p);
        pthread_mutex_unlock(&p->lock);
}

static void load(struct pit *p, unsigned index, uint16_t value)
{
        struct channel *c = &p->channels[index];
        c->reload = value ? value : 0x10000;
        c->start_ns = clock_monotonic_ns();
        if (index == 0) {
                p->fired = 0;
                arm(p);
        }
}

static void latch_status(struct channel *c)
{
        c->status = (uint8_t)(output(c) << 7 | !c->start_ns << 6 | c->access << 4 | c->mode << 1);
        c->has_status = true;
}

static void latch_count(struct channel *c)
{
        if (!c->has_latch)
                c->latched = count(c);
        c->has_latch = true;
}

static void read_back(struct pit *p, uint8_t value)
{
        for (unsigned i = 0; i < 3; i++) {
                if (!(value & 2u << i))
                        continue;
                if (!(value & 0x20))
                        latch_count(&p->channels[i]);
                if (!(value & 0x10))
                        latch_status(&p->channels[i]);
        }
}

static void control(struct pit *p, uint8_t value)
{
        unsigned index = value >> 6;
        if (index == 3) {
                read_back(p, value);
                return;
        }
        struct channel *c = &p->channels[index];
        unsigned access = value >> 4 & 3;
        if (access == ACCESS_LATCH) {
                latch_count(c);
                return;
        }
        *c = (struct channel){ .mode = value >> 1 & 7, .access = access, .reload = 0x10000 };
        if (c->mode > 5)
                c->mode -= 4;
        if (index == 0) {
                p->fired = 0;
                arm(p);
        }
}

static uint64_t pit_read(void *device, uint64_t offset, unsigned size)
{
        struct pit *p = device;
        (void)size;
        if (offset == 3)
                return 0;
        struct channel *c = &p->channels[offset];
        if (c->has_status) {
                c->has_status = false;
                return c->status;
        }
        uint16_t value = c->has_latch ? c->latched : count(c);
        bool high = c->access == ACCESS_HIGH || (c->access == ACCESS_BOTH && c->high_next_read);
        if (c->access == ACCESS_BOTH)
                c->high_next_read = !c->high_next_read;
        if (c->access != ACCESS_BOTH || high)
                c->has_latch = false;
        return high ? value >> 8 : value & 0xff;
}

static void pit_write(void *device, uint64_t offset, unsigned size, uint64_t wide)
{
        struct pit *p = device;
        uint8_t value = (uint8_t)wide;
        (void)size;
        if (offset == 3) {
                control(p, value);
                return;
        }
        struct channel *c = &p->channels[offset];
        if (c->access == ACCESS_LOW) {
                load(p, (unsigned)offset, value);
        } else if (c->access == ACCESS_HIGH) {
                load(p, (unsigned)offset, (uint16_t)(value << 8));
        } else if (c->high_next_write) {
                c->high_next_write = false;
                load(p, (unsigned)offset, (uint16_t)(value << 8 | c->low_written));
        } else {
                c->low_written = value;
                c->high_next_write = true;
        }
}

static uint64_t speaker_read(void *device, uint64_t offset, unsigned size)
{
        const struct pit *p = device;
        (void)offset, (void)size;
        uint8_t refresh = clock_monotonic_ns() / 15000 & 1 ? SPEAKER_CLOCK : 0;
        return (p->speaker & 3u) | refresh | (output(&p->channels[2]) ? SPEAKER_OUT : 0);
}

static void speaker_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct pit *p = device;
        (void)offset, (void)size;
        /* A rising gate restarts the count. */
        if (value & SPEAKER_GATE && !(p->speaker & SPEAKER_GATE) && p->channels[2].start_ns)
                p->channels[2].start_ns = clock_monotonic_ns();
        p->speaker = value & 3;
}

static const struct bus_ops pit_bus = { pit_read, pit_write };
static const struct bus_ops speaker_bus = { speaker_read, speaker_write };

/* ---- in and out of a snapshot ---- */

static const struct state_field channel_fields[] = {
        STATE_FIELD(struct channel, mode, 5),
        STATE_FIELD(struct channel, access, ACCESS_BOTH),
        STATE_FIELD(struct channel, reload, 0x10000),
        STATE_MOMENT(struct channel, start_ns),
        STATE_FIELD(struct channel, latched, UINT16_MAX),
        STATE_FIELD(struct channel, status, UINT8_MAX),
        STATE_FIELD(struct channel, has_latch, 1),
        STATE_FIELD(struct channel, has_status, 1),
        STATE_FIELD(struct channel, high_next_read, 1),
        STATE_FIELD(struct channel, high_next_write, 1),
        STATE_FIELD(struct channel, low_written, UINT8_MAX),
};

static const struct state_field pit_fields[] = {
        STATE_FIELD(struct pit, speaker, 3),
        STATE_FIELD(struct pit, fired, TICKS_MAX),
};

static int save(struct device *device, struct state_writer *w, struct err *err)
{
        struct pit *p = container_of(device, struct pit, device);
        (void)err;
        pthread_mutex_lock(&p->lock);
        for (unsigned i = 0; i < 3; i++)
                state_put_fields(w, &p->channels[i], channel_fields, ELEMENTS(channel_fields));
        state_put_fields(w, p, pit_fields, ELEMENTS(pit_fields));
        pthread_mutex_unlock(&p->lock);
        return 0;
}

static int restore(struct device *device, struct state_section *s, struct err *err)
{
        struct pit *p = container_of(device, struct pit, device);
        for (unsigned i = 0; i < 3; i++) {
                state_get_fields(s, &p->channels[i], channel_fields, ELEMENTS(channel_fields));
                if (p->channels[i].reload == 0)
                        return state_refuse(s, err, "channel %u counts from 0", i);
        }
        state_get_fields(s, p, pit_fields, ELEMENTS(pit_fields));
        if (p->fired > TICKS_MAX / p->channels[0].reload)
                return state_refuse(s, err, "channel 0 has counted for centuries");
        int r = state_end(s, err);
        if (r == 0)
                arm(p);
        return r;
}

static const struct state_ops state = { 1, save, restore };

static void destroy(struct device *device)
{
        struct pit *p = container_of(device, struct pit, device);
        timer_destroy(p->timer);
        pthread_mutex_destroy(&p->lock);
        free(p);
}

int pit_create(struct machine *machine, struct err *err)
{
        struct pit *p = new0(struct pit);
        p->machine = machine;
        pthread_mutex_init(&p->lock, NULL);
        for (unsigned i = 0; i < 3; i++)
                p->channels[i] = (struct channel){ .access = ACCESS_BOTH, .reload = 0x10000 };
        machine_add_device(machine, &p->device, "pit", destroy);
        p->device.state = &state;
        int r = timer_create_on(machine->loop, expired, p, &p->timer, err);
        if (r < 0)
                return r;
        r = bus_add(&machine->pio,
                    &(struct bus_region){ PORT_PIT, 4, &pit_bus, p, &p->lock, "pit" }, err);
        return r < 0 ? r
                     : bus_add(&machine->pio,
                               &(struct bus_region){ PORT_SPEAKER, 1, &speaker_bus, p, &p->lock,
                                                     "speaker" },
                               err);
}
