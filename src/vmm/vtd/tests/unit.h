/* A machine with an IOMMU and nothing else, and its tables. */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "vmm/layout.h"
#include "vmm/vtd/vtd.h"

#define RAM   (16u << 20)
#define ROOT  0x10000u
#define QUEUE 0x20000u
#define IRTE  0x30000u

struct sent {
        uint64_t address;
        uint32_t data;
        unsigned times;
};

static struct sent sent;

static inline void take_message(void *provider, uint64_t address, uint32_t data)
{
        (void)provider;
        sent = (struct sent){ address, data, sent.times + 1 };
}

static const struct irq_ops take_ops = { .message = take_message };

static inline struct machine *unit_create(void)
{
        struct machine *m = calloc(1, sizeof(*m));
        struct err err;
        if (!m || loop_create(&m->loop, &err) < 0 || memory_init(&m->memory, RAM, NULL, &err) < 0)
                abort();
        list_init(&m->devices);
        bus_init(&m->mmio, "MMIO");
        m->irq = (struct irq){ .ops = &take_ops };
        if (vtd_create(m, &err) < 0)
                abort();
        memset(&sent, 0, sizeof(sent));
        return m;
}

static inline void unit_destroy(struct machine *m)
{
        machine_remove_device(m, machine_last_device(m));
        memory_finish(&m->memory);
        bus_finish(&m->mmio);
        loop_destroy(m->loop);
        free(m);
}

static inline uint64_t reg(struct machine *m, unsigned at, unsigned size)
{
        uint64_t value;
        bus_read(&m->mmio, LAYOUT_IOMMU + at, size, &value);
        return value;
}

static inline void set_reg(struct machine *m, unsigned at, unsigned size, uint64_t value)
{
        bus_write(&m->mmio, LAYOUT_IOMMU + at, size, value);
}

static inline void put64(struct machine *m, uint64_t at, uint64_t value)
{
        memory_write(&m->memory, gpa(at), &value, sizeof(value));
}

static inline uint64_t get64(struct machine *m, uint64_t at)
{
        uint64_t value = 0;
        memory_read(&m->memory, gpa(at), &value, sizeof(value));
        return value;
}
