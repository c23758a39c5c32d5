#include "vmm/hotplug/hotplug.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/hotplug/ports.h"
#include "vmm/layout.h"
#include "vmm/pci/pci.h"
#include "vmm/snapshot/state.h"
#include "vmm/virtio/worker.h"

struct place {
        struct hotplug_place place;
        char *name; /* NULL: free */
        const char *kind;
        struct device *device;
        int fds[NET_PAIRS];
        unsigned fds_length;
        void (*gone)(void *arg); /* NULL: nobody waits */
        void *arg;
};

struct hotplug {
        struct device device;
        struct machine *machine;
        struct power *power;
        struct place places[HOTPLUG_SLOTS_MAX];
        unsigned length;

        pthread_mutex_t lock; /* of what follows, a bit per PCI slot */
        uint32_t up, down;
        uint32_t taken;   /* by a device: only those are ejected */
        uint32_t ejected; /* to be destroyed by the loop's thread */
};

static void close_fds(struct place *p)
{
        while (p->fds_length)
                close_fd(&p->fds[--p->fds_length]);
}

/* ---- the guest lets go ---- */

static void empty(struct hotplug *h, struct place *p)
{
        machine_pause(h->machine); /* no vCPU is inside of the device */
        machine_remove_device(h->machine, p->device);
        machine_resume(h->machine);
        close_fds(p);
        free(p->name);
        p->name = NULL;
        p->device = NULL;
        if (p->gone)
                p->gone(p->arg);
        p->gone = NULL;
}

static void empty_ejected(void *arg)
{
        struct hotplug *h = arg;
        pthread_mutex_lock(&h->lock);
        uint32_t ejected = h->ejected;
        h->ejected = 0;
        pthread_mutex_unlock(&h->lock);
        for (unsigned i = 0; i < h->length; i++)
                if (ejected >> h->places[i].place.slot & 1 && h->places[i].name)
                        empty(h, &h->places[i]);
}

/* ---- registers ---- */

static uint64_t ports_read(void *device, uint64_t offset, unsigned size)
{
        struct hotplug *h = device;
        uint32_t value = 0;
        if (size == 4 && offset == HOTPLUG_UP) {
                value = h->up;
                h->up = 0;
        } else if (size == 4 && offset == HOTPLUG_DOWN) {
                value = h->down;
                h->down = 0;
        }
        return value;
}

static void ports_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct hotplug *h = device;
        if (size != 4 || offset != HOTPLUG_EJECT)
                return;
        uint32_t ejected = (uint32_t)value & h->taken;
        h->taken &= ~ejected;
        h->ejected |= ejected;
        if (ejected)
                loop_post(h->machine->loop, empty_ejected, h);
}

static const struct bus_ops ports_bus = { ports_read, ports_write };

/* ---- in and out of a snapshot ---- */

static const struct state_field fields[] = {
        STATE_FIELD(struct hotplug, up, UINT32_MAX),
        STATE_FIELD(struct hotplug, down, UINT32_MAX),
};

/* What was attached is in no configuration, which is what a machine is built from. */
static int save(struct device *device, struct state_writer *w, struct err *err)
{
        struct hotplug *h = container_of(device, struct hotplug, device);
        for (unsigned i = 0; i < h->length; i++)
                if (h->places[i].name)
                        return err_plain(err, ENOTSUP,
                                         "device '%s' was attached while the machine ran, and "
                                         "cannot be saved; isle-vmm --detach %s takes it away",
                                         h->places[i].name, h->places[i].name);
        pthread_mutex_lock(&h->lock);
        state_put_fields(w, h, fields, ELEMENTS(fields));
        pthread_mutex_unlock(&h->lock);
        return 0;
}

static int restore(struct device *device, struct state_section *s, struct err *err)
{
        (void)err;
        state_get_fields(s, container_of(device, struct hotplug, device), fields, ELEMENTS(fields));
        return 0;
}

static const struct state_ops state = { 1, save, restore };

/* ---- building ---- */

static void destroy(struct device *device)
{
        struct hotplug *h = container_of(device, struct hotplug, device);
        for (unsigned i = 0; i < h->length; i++) { /* devices are gone already */
                struct place *p = &h->places[i];
                worker_destroy(p->place.disk);
                for (unsigned k = 0; k < p->place.pairs; k++)
                        worker_destroy(p->place.net[k]);
                close_fds(p);
                free(p->name);
        }
        pthread_mutex_destroy(&h->lock);
        free(h);
}

static int make_place(struct place *p, unsigned slot, unsigned pairs, struct err *err)
{
        p->place.slot = slot;
        int r = worker_create_spare("virtio-blk", JAIL_DISK, &p->place.disk, err);
        for (; r == 0 && p->place.pairs < pairs; p->place.pairs += r == 0)
                r = worker_create_spare("virtio-net", JAIL_NET, &p->place.net[p->place.pairs], err);
        return r;
}

int hotplug_create(struct machine *m, struct power *power, unsigned slots, unsigned pairs,
                   struct hotplug **ret, struct err *err)
{
        struct hotplug *h = new0(struct hotplug);
        h->machine = m;
        h->power = power;
        pthread_mutex_init(&h->lock, NULL);
        machine_add_device(m, &h->device, "hotplug", destroy);
        h->device.state = &state;
        int r = pci_keep_slots(m, slots, err);
        for (unsigned i = 0; r == 0 && i < slots; i++)
                r = make_place(&h->places[h->length++], PCI_SLOTS - slots + i, pairs, err);
        const struct bus_region ports = {
                LAYOUT_PORT_HOTPLUG, HOTPLUG_PORTS, &ports_bus, h, &h->lock, "hotplug"
        };
        if (r == 0)
                r = bus_add(&m->pio, &ports, err);
        *ret = h;
        return r;
}

/* ---- coming and going ---- */

static struct place *find(struct hotplug *h, const char *name)
{
        for (unsigned i = 0; i < h->length; i++)
                if (streq(h->places[i].name, name))
                        return &h->places[i];
        return NULL;
}

int hotplug_find_place(const struct hotplug *h, const char *name, struct hotplug_place *ret,
                       struct err *err)
{
        const struct place *free_place = NULL;
        for (unsigned i = h->length; i-- > 0;) {
                if (streq(h->places[i].name, name))
                        return err_plain(err, EEXIST, "there is a device '%s' already", name);
                if (!h->places[i].name)
                        free_place = &h->places[i];
        }
        if (!free_place)
                return err_plain(err, ENOSPC,
                                 "all %u places for devices are taken; --hotplug N "
                                 "gives a machine up to %d",
                                 h->length, HOTPLUG_SLOTS_MAX);
        *ret = free_place->place;
        return 0;
}

void hotplug_plug(struct hotplug *h, const struct hotplug_place *place, const char *name,
                  const char *kind, struct device *device, const int *fds, unsigned length)
{
        for (unsigned i = 0; i < h->length; i++) {
                struct place *p = &h->places[i];
                if (p->place.slot != place->slot)
                        continue;
                p->name = xstrdup(name);
                p->kind = kind;
                p->device = device;
                memcpy(p->fds, fds, length * sizeof(*fds));
                p->fds_length = length;
        }
        pthread_mutex_lock(&h->lock);
        h->taken |= 1u << place->slot;
        h->up |= 1u << place->slot;
        pthread_mutex_unlock(&h->lock);
        power_event(h->power, HOTPLUG_EVENT);
}

int hotplug_unplug(struct hotplug *h, const char *name, void (*gone)(void *arg), void *arg,
                   struct err *err)
{
        struct place *p = find(h, name);
        if (!p)
                return err_plain(err, ENOENT, "no device '%s' was attached", name);
        if (p->gone)
                return err_plain(err, EALREADY, "device '%s' is being detached already", name);
        p->gone = gone;
        p->arg = arg;
        pthread_mutex_lock(&h->lock);
        h->down |= 1u << p->place.slot;
        pthread_mutex_unlock(&h->lock);
        power_event(h->power, HOTPLUG_EVENT);
        return 0;
}

void hotplug_stop_waiting(struct hotplug *h, const void *arg)
{
        for (unsigned i = 0; i < h->length; i++)
                if (h->places[i].gone && h->places[i].arg == arg)
                        h->places[i].gone = NULL;
}

void hotplug_each(const struct hotplug *h,
                  void (*take)(void *arg, const char *name, const char *kind, bool leaving),
                  void *arg)
{
        for (unsigned i = 0; i < h->length; i++)
                if (h->places[i].name)
                        take(arg, h->places[i].name, h->places[i].kind, h->places[i].gone);
}
