/* A bus: who answers at which port or MMIO address.
 *
 * Two of them in a machine, same structure. A region belongs to a device; an
 * access lies inside one region or nobody answers (reads give all ones, writes
 * vanish). Accesses are 1, 2, 4 or 8 bytes.
 *
 * Threads: lookups by any vCPU thread; regions move (PCI BARs) under the bus's
 * own lock, which is not held while a device works. The region's `lock`, where
 * given, is taken around each access: it is the device's own mutex.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define BUS_REGIONS 192

struct bus_ops {
        uint64_t (*read)(void *device, uint64_t offset, unsigned size_bytes);
        void (*write)(void *device, uint64_t offset, unsigned size_bytes, uint64_t value);
};

struct bus_region {
        uint64_t base, size;
        const struct bus_ops *ops;
        void *device;
        pthread_mutex_t *lock; /* NULL: the device locks for itself */
        const char *name;      /* for errors and dumps */
};

struct bus {
        const char *name;
        pthread_rwlock_t lock;
        struct bus_region regions[BUS_REGIONS]; /* sorted by base, disjoint */
        unsigned length;
};

void bus_init(struct bus *bus, const char *name);
void bus_finish(struct bus *bus);

/* -EEXIST where it overlaps another region, -ENOSPC when the table is full. */
int bus_add(struct bus *bus, const struct bus_region *region, struct err *err);
void bus_remove(struct bus *bus, const void *device, uint64_t base);

/* False where nobody answers; *ret_value is then all ones of that size. */
bool bus_read(struct bus *bus, uint64_t address, unsigned size_bytes, uint64_t *ret_value);
bool bus_write(struct bus *bus, uint64_t address, unsigned size_bytes, uint64_t value);

static inline uint64_t size_mask(unsigned size_bytes)
{
        return size_bytes >= 8 ? UINT64_MAX : (1ull << 8 * size_bytes) - 1;
}
