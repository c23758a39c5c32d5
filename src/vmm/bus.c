#include "vmm/bus.h"

#include <string.h>

#include "base/auto.h"

void bus_init(struct bus *bus, const char *name)
{
        memset(bus, 0, sizeof(*bus));
        bus->name = name;
        pthread_rwlock_init(&bus->lock, NULL);
}

void bus_finish(struct bus *bus)
{
        pthread_rwlock_destroy(&bus->lock);
        bus->length = 0;
}

/* Index of the first region that ends after `address`. */
static unsigned position(const struct bus *bus, uint64_t address)
{
        unsigned low = 0, high = bus->length;
        while (low < high) {
                unsigned middle = (low + high) / 2;
                const struct bus_region *r = &bus->regions[middle];
                if (r->base + (r->size - 1) < address)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

int bus_add(struct bus *bus, const struct bus_region *region, struct err *err)
{
        if (!region->size || region->base + (region->size - 1) < region->base)
                return err_plain(err, EINVAL, "%s: %s has no valid range", bus->name, region->name);
        pthread_rwlock_wrlock(&bus->lock);
        unsigned at = position(bus, region->base);
        int r = 0;
        if (bus->length == BUS_REGIONS)
                r = err_plain(err, ENOSPC, "%s: too many devices", bus->name);
        else if (at < bus->length && bus->regions[at].base <= region->base + (region->size - 1))
                r = err_plain(err, EEXIST, "%s: %s at 0x%llx overlaps %s", bus->name, region->name,
                              (unsigned long long)region->base, bus->regions[at].name);
        if (r == 0) {
                memmove(&bus->regions[at + 1], &bus->regions[at],
                        (bus->length - at) * sizeof(*region));
                bus->regions[at] = *region;
                bus->length++;
        }
        pthread_rwlock_unlock(&bus->lock);
        return r;
}

void bus_remove(struct bus *bus, const void *device, uint64_t base)
{
        pthread_rwlock_wrlock(&bus->lock);
        for (unsigned i = 0; i < bus->length; i++) {
                if (bus->regions[i].device != device || bus->regions[i].base != base)
                        continue;
                bus->length--;
                memmove(&bus->regions[i], &bus->regions[i + 1],
                        (bus->length - i) * sizeof(bus->regions[0]));
                break;
        }
        pthread_rwlock_unlock(&bus->lock);
}

static bool find(struct bus *bus, uint64_t address, unsigned size_bytes, struct bus_region *ret)
{
        pthread_rwlock_rdlock(&bus->lock);
        unsigned at = position(bus, address);
        bool found = at < bus->length && address >= bus->regions[at].base &&
                     size_bytes <= bus->regions[at].size - (address - bus->regions[at].base);
        if (found)
                *ret = bus->regions[at];
        pthread_rwlock_unlock(&bus->lock);
        return found;
}

bool bus_read(struct bus *bus, uint64_t address, unsigned size_bytes, uint64_t *ret_value)
{
        struct bus_region r;
        *ret_value = size_mask(size_bytes);
        if (!find(bus, address, size_bytes, &r))
                return false;
        if (!r.ops->read)
                return true;
        if (r.lock)
                pthread_mutex_lock(r.lock);
        *ret_value = r.ops->read(r.device, address - r.base, size_bytes) & size_mask(size_bytes);
        if (r.lock)
                pthread_mutex_unlock(r.lock);
        return true;
}

bool bus_write(struct bus *bus, uint64_t address, unsigned size_bytes, uint64_t value)
{
        struct bus_region r;
        if (!find(bus, address, size_bytes, &r))
                return false;
        if (!r.ops->write)
                return true;
        if (r.lock)
                pthread_mutex_lock(r.lock);
        r.ops->write(r.device, address - r.base, size_bytes, value & size_mask(size_bytes));
        if (r.lock)
                pthread_mutex_unlock(r.lock);
        return true;
}
