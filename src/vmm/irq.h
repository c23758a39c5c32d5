/* The interrupt fabric: what a device calls, whoever implements it.
 *
 * A device raises a line (a GSI: level as wired, edges are a raise and a lower)
 * or sends a message (MSI). The CPU provider brings the implementation: KVM's
 * in-kernel chips, or our models of PIC, IOAPIC and local APICs for the
 * software CPU. All functions may be called by any thread, with the device's
 * own lock held.
 *
 * Between them and the processors may be an IOMMU that rewrites messages.
 *
 * A message that is sent again and again, as MSI-X has them, can be prepared when the guest
 * writes it (irq_prepare(), on a vCPU's thread); sending it is then a write to a descriptor
 * that the provider waits at, where it has such descriptors and one is left.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct irq_ops {
        void (*line)(void *provider, unsigned gsi, bool raised);
        void (*message)(void *provider, uint64_t address, uint32_t data);
        /* Routes, by number; all NULL where message() is as good. open() makes this many more,
         * as far as there are more, before the jail; take() returns one of them, or -ENOSPC;
         * set() is not the devices' threads' to call. */
        int (*routes_open)(void *provider, unsigned count, struct err *err);
        int (*route_take)(void *provider);
        int (*route_set)(void *provider, int number, uint64_t address, uint32_t data);
        void (*route_send)(void *provider, int number);
        void (*route_drop)(void *provider, int number);
};

/* What a message is sent by. Zeroed: nothing is prepared. */
struct irq_route {
        bool taken, ready;
        int number;       /* where taken */
        uint64_t address; /* what it sends, where ready */
        uint32_t data;
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

/* Before the jail: for so many messages that will be prepared. */
static inline int irq_expect(const struct irq *irq, unsigned count, struct err *err)
{
        return irq->ops && irq->ops->routes_open ? irq->ops->routes_open(irq->provider, count, err)
                                                 : 0;
}

/* `route` sends this from here on, if it can. The caller sees to it that nobody sends by it
 * meanwhile. With an IOMMU nothing is prepared: it may have another answer each time. */
static inline void irq_prepare(const struct irq *irq, struct irq_route *route, uint64_t address,
                               uint32_t data)
{
        const struct irq_ops *ops = irq->ops;
        if (!ops || !ops->route_take || irq->remap ||
            (route->ready && route->address == address && route->data == data))
                return;
        if (!route->taken) {
                int number = ops->route_take(irq->provider);
                if (number < 0)
                        return;
                *route = (struct irq_route){ .taken = true, .number = number };
        }
        route->ready = ops->route_set(irq->provider, route->number, address, data) == 0;
        route->address = address;
        route->data = data;
}

/* False: it is for irq_message(). */
static inline bool irq_send_prepared(const struct irq *irq, const struct irq_route *route,
                                     uint64_t address, uint32_t data)
{
        if (!route->ready || route->address != address || route->data != data)
                return false;
        irq->ops->route_send(irq->provider, route->number);
        return true;
}

static inline void irq_unprepare(const struct irq *irq, struct irq_route *route)
{
        if (route->taken)
                irq->ops->route_drop(irq->provider, route->number);
        *route = (struct irq_route){ 0 };
}
