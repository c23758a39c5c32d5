#include "vmm/device/rtc.h"

#include <time.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "vmm/layout.h"
#include "vmm/snapshot/state.h"
#include "vmm/timer.h"

#define PORT_RTC 0x70

enum {
        SECONDS,
        SECONDS_ALARM,
        MINUTES,
        MINUTES_ALARM,
        HOURS,
        HOURS_ALARM,
        WEEKDAY,
        DAY,
        MONTH,
        YEAR,
        STATUS_A,
        STATUS_B,
        STATUS_C,
        STATUS_D,
        CENTURY = 0x32,
};

#define B_SET      0x80
#define B_PERIODIC 0x40
#define B_ALARM    0x20
#define B_UPDATE   0x10
#define B_BINARY   0x04
#define B_24_HOURS 0x02
#define C_IRQ      0x80
#define D_VALID    0x80

#define OFFSET_MAX (1ll << 40) /* s: more than any date that registers can hold */

struct rtc {
        struct device device;
        struct machine *machine;
        struct timer *timer;
        pthread_mutex_t lock;
        uint8_t index;
        uint8_t cmos[128];
        int64_t offset_s;       /* guest time - host time */
        int64_t next_period_ns; /* monotonic; 0: no periodic interrupt */
        int64_t last_second;    /* guest time of the last update seen */
};

static int64_t guest_seconds(const struct rtc *r)
{
        return clock_realtime_ns() / NS_PER_S + r->offset_s;
}

static uint8_t encode(const struct rtc *r, int value)
{
        return (uint8_t)(r->cmos[STATUS_B] & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static int decode(const struct rtc *r, uint8_t value)
{
        return r->cmos[STATUS_B] & B_BINARY ? value : (value >> 4) * 10 + (value & 15);
}

static uint8_t encode_hour(const struct rtc *r, int hour)
{
        if (r->cmos[STATUS_B] & B_24_HOURS)
                return encode(r, hour);
        return (uint8_t)(encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0));
}

static int decode_hour(const struct rtc *r, uint8_t value)
{
        if (r->cmos[STATUS_B] & B_24_HOURS)
                return decode(r, value);
        return decode(r, value & 0x7f) % 12 + (value & 0x80 ? 12 : 0);
}

/* Clock registers from the time; they stand still while the guest sets them. */
static void show_time(struct rtc *r)
{
        if (r->cmos[STATUS_B] & B_SET)
                return;
        time_t now = guest_seconds(r);
        struct tm t;
        gmtime_r(&now, &t);
        r->cmos[SECONDS] = encode(r, t.tm_sec);
        r->cmos[MINUTES] = encode(r, t.tm_min);
        r->cmos[HOURS] = encode_hour(r, t.tm_hour);
        r->cmos[WEEKDAY] = encode(r, t.tm_wday + 1);
        r->cmos[DAY] = encode(r, t.tm_mday);
        r->cmos[MONTH] = encode(r, t.tm_mon + 1);
        r->cmos[YEAR] = encode(r, t.tm_year % 100);
        r->cmos[CENTURY] = encode(r, 19 + t.tm_year / 100);
}

static void take_time(struct rtc *r)
{
        struct tm t = {
                .tm_sec = decode(r, r->cmos[SECONDS]),
                .tm_min = decode(r, r->cmos[MINUTES]),
                .tm_hour = decode_hour(r, r->cmos[HOURS]),
                .tm_mday = decode(r, r->cmos[DAY]),
                .tm_mon = decode(r, r->cmos[MONTH]) - 1,
                .tm_year = decode(r, r->cmos[CENTURY]) * 100 + decode(r, r->cmos[YEAR]) - 1900,
        };
        r->offset_s = timegm(&t) - clock_realtime_ns() / NS_PER_S;
}

/* 0 in an alarm's top bits matches exactly; 11 there means "any". */
static bool alarm_matches(const struct rtc *r)
{
        for (unsigned i = SECONDS; i <= HOURS; i += 2)
                if ((r->cmos[i + 1] & 0xc0) != 0xc0 && r->cmos[i + 1] != r->cmos[i])
                        return false;
        return true;
}

static int64_t period_ns(const struct rtc *r)
{
        unsigned rate = r->cmos[STATUS_A] & 15;
        if (!rate)
                return 0;
        if (rate < 3)
                rate += 7;
        return NS_PER_S * (1ll << (rate - 1)) / 32768;
}

static void arm(struct rtc *r)
{
        int64_t now = clock_monotonic_ns(), next = 0;
        if (r->cmos[STATUS_B] & B_PERIODIC && period_ns(r)) {
                if (!r->next_period_ns)
                        r->next_period_ns = now + period_ns(r);
                next = r->next_period_ns;
        } else {
                r->next_period_ns = 0;
        }
        if (r->cmos[STATUS_B] & (B_ALARM | B_UPDATE)) {
                int64_t second = now + NS_PER_S - clock_realtime_ns() % NS_PER_S;
                if (!next || second < next)
                        next = second;
        }
        timer_arm(r->timer, next);
}

static void raise_causes(struct rtc *r, uint8_t causes)
{
        r->cmos[STATUS_C] |= causes;
        if (!(causes & r->cmos[STATUS_B]) || r->cmos[STATUS_C] & C_IRQ)
                return;
        r->cmos[STATUS_C] |= C_IRQ;
        irq_line(&r->machine->irq, LAYOUT_IRQ_RTC, true);
}

static void expired(void *arg)
{
        struct rtc *r = arg;
        pthread_mutex_lock(&r->lock);
        int64_t now = clock_monotonic_ns();
        uint8_t causes = 0;
        if (r->next_period_ns && now >= r->next_period_ns) {
                causes |= B_PERIODIC;
                int64_t late = now - r->next_period_ns;
                r->next_period_ns += period_ns(r) * (late / period_ns(r) + 1);
        }
        if (guest_seconds(r) != r->last_second && !(r->cmos[STATUS_B] & B_SET)) {
                r->last_second = guest_seconds(r);
                show_time(r);
                causes |= B_UPDATE | (alarm_matches(r) ? B_ALARM : 0);
        }
        raise_causes(r, causes);
        arm(r);
        pthread_mutex_unlock(&r->lock);
}

static uint64_t rtc_read(void *device, uint64_t offset, unsigned size)
{
        struct rtc *r = device;
        (void)size;
        if (offset == 0)
                return 0xff;
        if (r->index <= YEAR || r->index == CENTURY)
                show_time(r);
        uint8_t value = r->cmos[r->index];
        if (r->index == STATUS_C && value) {
                r->cmos[STATUS_C] = 0;
                irq_line(&r->machine->irq, LAYOUT_IRQ_RTC, false);
        }
        return value;
}

static void rtc_write(void *device, uint64_t offset, unsigned size, uint64_t wide)
{
        struct rtc *r = device;
        uint8_t value = (uint8_t)wide;
        (void)size;
        if (offset == 0) {
                r->index = value & 0x7f;
                return;
        }
        if (r->index == STATUS_C || r->index == STATUS_D)
                return;
        bool was_set = r->cmos[STATUS_B] & B_SET;
        if (r->index <= YEAR)
                show_time(r);
        else if (r->index == STATUS_B)
                show_time(r);
        r->cmos[r->index] = value;
        bool clock = r->index == CENTURY || r->index == WEEKDAY || r->index >= DAY ||
                     !(r->index & 1);
        if (r->index == STATUS_B && was_set && !(value & B_SET))
                take_time(r);
        else if ((r->index <= YEAR || r->index == CENTURY) && clock && !was_set)
                take_time(r);
        if (r->index == STATUS_A || r->index == STATUS_B) {
                r->next_period_ns = 0;
                r->last_second = guest_seconds(r);
                arm(r);
        }
}

static const struct bus_ops rtc_bus = { rtc_read, rtc_write };

static void put16(struct rtc *r, unsigned at, uint64_t value)
{
        if (value > 0xffff)
                value = 0xffff;
        r->cmos[at] = (uint8_t)value;
        r->cmos[at + 1] = (uint8_t)(value >> 8);
}

static void show_memory(struct rtc *r, uint64_t size_bytes)
{
        uint64_t low = size_bytes < LAYOUT_LOW_MEMORY_END ? size_bytes : LAYOUT_LOW_MEMORY_END;
        uint64_t extended_kib = (low >> 10) - 1024;
        put16(r, 0x15, 640);
        put16(r, 0x17, extended_kib);
        put16(r, 0x30, extended_kib);
        put16(r, 0x34, low > 16ull << 20 ? (low - (16ull << 20)) >> 16 : 0);
        put16(r, 0x5b, (size_bytes - low) >> 16 & 0xffff);
}

/* ---- in and out of a snapshot ---- */

/* The clock shows the host's time, before a snapshot and after it: the one thing by which a
 * guest can see how long it was away. */
static const struct state_field fields[] = {
        STATE_FIELD(struct rtc, index, 127),
        STATE_ARRAY(struct rtc, cmos, UINT8_MAX),
        STATE_MOMENT(struct rtc, next_period_ns),
};

static int save(struct device *device, struct state_writer *w, struct err *err)
{
        struct rtc *r = container_of(device, struct rtc, device);
        (void)err;
        pthread_mutex_lock(&r->lock);
        state_put_fields(w, r, fields, ELEMENTS(fields));
        state_put(w, (uint64_t)(r->offset_s + OFFSET_MAX), 8);
        pthread_mutex_unlock(&r->lock);
        return 0;
}

static int restore(struct device *device, struct state_section *s, struct err *err)
{
        struct rtc *rtc = container_of(device, struct rtc, device);
        state_get_fields(s, rtc, fields, ELEMENTS(fields));
        rtc->offset_s = (int64_t)state_get_max(s, "offset_s", 8, 2 * OFFSET_MAX) - OFFSET_MAX;
        int r = state_end(s, err);
        if (r < 0)
                return r;
        rtc->last_second = guest_seconds(rtc);
        irq_line(&rtc->machine->irq, LAYOUT_IRQ_RTC, rtc->cmos[STATUS_C] & C_IRQ);
        arm(rtc);
        return 0;
}

static const struct state_ops state = { 1, save, restore };

static void destroy(struct device *device)
{
        struct rtc *r = container_of(device, struct rtc, device);
        timer_destroy(r->timer);
        pthread_mutex_destroy(&r->lock);
        free(r);
}

int rtc_create(struct machine *machine, struct err *err)
{
        struct rtc *rtc = new0(struct rtc);
        rtc->machine = machine;
        pthread_mutex_init(&rtc->lock, NULL);
        rtc->cmos[STATUS_A] = 0x26;
        rtc->cmos[STATUS_B] = B_24_HOURS;
        rtc->cmos[STATUS_D] = D_VALID;
        show_memory(rtc, machine->memory.size_bytes);
        machine_add_device(machine, &rtc->device, "rtc", destroy);
        rtc->device.state = &state;
        int r = timer_create_on(machine->loop, expired, rtc, &rtc->timer, err);
        return r < 0 ? r
                     : bus_add(&machine->pio,
                               &(struct bus_region){ PORT_RTC, 2, &rtc_bus, rtc, &rtc->lock,
                                                     "rtc" },
                               err);
}
