/* The interrupt fabric: what a device calls, whoever implements it.
 *
 * A device raises a line (a GSI: level as wired, edges are a raise and a lower)
 * or sends a message (MSI). The CPU provider brings the implementation: KVM's
 * in-kernel chips, or our models of PIC, IOAPIC and local APICs for the
 * software CPU. All functions may be called by any thread, with the device's
 * own lock held.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct irq_ops {
        void (*line)(void *provider, unsigned gsi, bool raised);
        void (*message)(void *provider, uint64_t address, uint32_t data);
};

struct irq {
        const struct irq_ops *ops;
        void *provider;
};

static inline void irq_line(const struct irq *irq, unsigned gsi, bool raised)
{
        if (irq->ops)
                irq->ops->line(irq->provider, gsi, raised);
}

static inline void irq_pulse(const struct irq *irq, unsigned gsi)
{
        irq_line(irq, gsi, true);
        irq_line(irq, gsi, false);
}

static inline void irq_message(const struct irq *irq, uint64_t address, uint32_t data)
{
        if (irq->ops)
                irq->ops->message(irq->provider, address, data);
}
