/* The interrupt fabric: what a device calls, whoever implements it.
 *
 * A device raises a line (a GSI: level as wired, edges are a raise and a lower)
 * or sends a message (MSI). The CPU provider brings the implementation: KVM's
 * in-kernel chips, or our models of PIC, IOAPIC and local APICs for the
 * software CPU. All functions may be called by any thread, with the device's
 * own lock held.
 *
 * Between them and the processors may be an IOMMU that rewrites messages.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct irq_ops {
        void (*line)(void *provider, unsigned gsi, bool raised);
        void (*message)(void *provider, uint64_t address, uint32_t data);
};

#define IRQ_FROM_IOAPIC (-1)
#define IRQ_FROM_IOMMU  (-2) /* its own messages are as they are */

struct irq_remap {
        /* `source`: a requester id, or IRQ_FROM_IOAPIC. False: the message is not sent on. The
         * interrupt fabric's lock may be held. */
        bool (*message)(void *arg, int source, uint64_t *address, uint32_t *data);
        void *arg;
};

struct irq {
        const struct irq_ops *ops;
        void *provider;
        const struct irq_remap *remap; /* NULL: messages go straight */
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

static inline bool irq_remapped(const struct irq *irq, int source, uint64_t *address,
                                uint32_t *data)
{
        return !irq->remap || source == IRQ_FROM_IOMMU ||
               irq->remap->message(irq->remap->arg, source, address, data);
}

static inline void irq_message(const struct irq *irq, int source, uint64_t address, uint32_t data)
{
        if (irq->ops && irq_remapped(irq, source, &address, &data))
                irq->ops->message(irq->provider, address, data);
}
