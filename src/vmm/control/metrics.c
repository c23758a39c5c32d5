#include "vmm/control/metrics.h"

#include <stdlib.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/jail/jail.h"

struct sample {
        char *name; /* metric and kind of thing: "virtio_blk_read_bytes" */
        unsigned index;
        uint64_t value;
};

struct samples {
        struct sample *items;
        size_t length;
        const char *kind;
        unsigned index;
};

static void take(void *arg, const char *name, uint64_t value)
{
        struct samples *s = arg;
        char *full = xasprintf("%s_%s", s->kind, name);
        for (char *c = full; *c; c++)
                if (*c == '-')
                        *c = '_';
        s->items = xrealloc(s->items, s->length + 1, sizeof(*s->items));
        s->items[s->length++] = (struct sample){ full, s->index, value };
}

static int by_name(const void *a, const void *b)
{
        const struct sample *x = a, *y = b;
        int order = strcmp(x->name, y->name);
        return order ? order : (x->index > y->index) - (x->index < y->index);
}

void metrics_write(const struct machine *m, struct buf *buf)
{
        struct samples samples = { 0 };
        const char *before = "";
        samples.kind = "vcpu";
        for (unsigned i = 0; i < m->vcpus_length; i++) {
                samples.index = i;
                if (m->cpu->counters)
                        m->cpu->counters(&m->vcpus[i], take, &samples);
        }
        list_for_each (struct device, d, &m->devices, node) {
                samples.kind = d->name;
                samples.index = machine_device_number(m, d);
                if (d->counters)
                        d->counters(d, take, &samples);
        }
        if (samples.length)
                qsort(samples.items, samples.length, sizeof(*samples.items), by_name);
        for (size_t i = 0; i < samples.length; i++) {
                const struct sample *s = &samples.items[i];
                if (!streq(before, s->name))
                        buf_printf(buf, "# TYPE isle_vmm_%s_total counter\n", s->name);
                before = s->name;
                buf_printf(buf, "isle_vmm_%s_total{index=\"%u\"} %llu\n", s->name, s->index,
                           (unsigned long long)s->value);
        }
        buf_printf(buf, "# TYPE isle_vmm_jailed gauge\nisle_vmm_jailed %d\n", jail_is_on());
        for (size_t i = 0; i < samples.length; i++)
                free(samples.items[i].name);
        free(samples.items);
}
