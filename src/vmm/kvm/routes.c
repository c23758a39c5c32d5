/* Where interrupts go: KVM's one table of routes, and messages that a write sends.
 *
 * Theory of operation. KVM takes its table only as a whole. Its first part are the lines,
 * which kvm.c and split.c know; behind it comes one entry for each route that a device has
 * taken. Each route has an eventfd that KVM was told of (KVM_IRQFD) when the device was made,
 * before the jail: then it goes nowhere yet. So the jailed threads need no right to tie
 * descriptors to interrupts: those of vCPUs send the table when the guest has written a new
 * message, those of devices write to an eventfd. */
#include <errno.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/kvm/kvm.h"
#include "vmm/layout.h"

struct route {
        int fd;
        bool taken, set;
        uint64_t address;
        uint32_t data;
};

struct kvm_routes {
        pthread_mutex_t lock; /* innermost */
        struct kvm_irq_routing_entry lines[KVM_ROUTES_LINES];
        unsigned lines_length;
        struct route routes[KVM_ROUTES];
        unsigned length; /* of those with a descriptor; changes before the jail only */
};

static unsigned gsi_of(unsigned number)
{
        return LAYOUT_GSIS + number;
}

/* Lock held. */
static int send_table(const struct kvm_machine *k)
{
        const struct kvm_routes *r = k->routes;
        union {
                struct kvm_irq_routing list;
                uint8_t bytes[sizeof(struct kvm_irq_routing) +
                              (KVM_ROUTES_LINES + KVM_ROUTES) *
                                      sizeof(struct kvm_irq_routing_entry)];
        } table = { .list = { .nr = r->lines_length } };
        memcpy(table.list.entries, r->lines, r->lines_length * sizeof(r->lines[0]));
        for (unsigned i = 0; i < r->length; i++) {
                const struct route *route = &r->routes[i];
                if (!route->set)
                        continue;
                table.list.entries[table.list.nr++] = (struct kvm_irq_routing_entry){
                        .gsi = gsi_of(i),
                        .type = KVM_IRQ_ROUTING_MSI,
                        .u.msi.address_lo = (uint32_t)route->address,
                        .u.msi.address_hi = (uint32_t)(route->address >> 32),
                        .u.msi.data = route->data,
                };
        }
        return ioctl(k->vm_fd, KVM_SET_GSI_ROUTING, &table) < 0 ? -errno : 0;
}

int kvm_routes_lines(struct kvm_machine *k, const struct kvm_irq_routing_entry *lines,
                     unsigned length)
{
        struct kvm_routes *r = k->routes;
        pthread_mutex_lock(&r->lock);
        memcpy(r->lines, lines, length * sizeof(*lines));
        r->lines_length = length;
        int result = send_table(k);
        pthread_mutex_unlock(&r->lock);
        return result;
}

void kvm_routes_create(struct kvm_machine *k)
{
        k->routes = new0(struct kvm_routes);
        pthread_mutex_init(&k->routes->lock, NULL);
}

void kvm_routes_destroy(struct kvm_machine *k)
{
        struct kvm_routes *r = k->routes;
        if (!r)
                return;
        for (unsigned i = 0; i < r->length; i++)
                close_fd(&r->routes[i].fd);
        pthread_mutex_destroy(&r->lock);
        free(r);
        k->routes = NULL;
}

/* ---- the interrupt fabric's: see irq.h ---- */

int kvm_routes_open(void *provider, unsigned count, struct err *err)
{
        const struct kvm_machine *k = provider;
        struct kvm_routes *r = k->routes;
        if (ioctl(k->fd, KVM_CHECK_EXTENSION, KVM_CAP_IRQFD) <= 0)
                return 0;
        for (; count > 0 && r->length < KVM_ROUTES; count--) {
                unsigned i = r->length;
                auto_fd fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
                if (fd < 0)
                        return err_set(err, errno, "descriptor %u of KVM's interrupts", i);
                struct kvm_irqfd tie = { .fd = (uint32_t)fd, .gsi = gsi_of(i) };
                if (ioctl(k->vm_fd, KVM_IRQFD, &tie) < 0)
                        return err_set(err, errno, "interrupt %u of KVM by a descriptor",
                                       gsi_of(i));
                r->routes[r->length++] = (struct route){ .fd = take_fd(fd) };
        }
        return 0;
}

int kvm_route_take(void *provider)
{
        const struct kvm_machine *k = provider;
        struct kvm_routes *r = k->routes;
        int found = -ENOSPC;
        pthread_mutex_lock(&r->lock);
        for (unsigned i = 0; found < 0 && i < r->length; i++) {
                if (r->routes[i].taken)
                        continue;
                r->routes[i].taken = true;
                found = (int)i;
        }
        pthread_mutex_unlock(&r->lock);
        return found;
}

int kvm_route_set(void *provider, int number, uint64_t address, uint32_t data)
{
        const struct kvm_machine *k = provider;
        struct route *route = &k->routes->routes[number];
        pthread_mutex_lock(&k->routes->lock);
        route->set = true;
        route->address = address;
        route->data = data;
        int r = send_table(k);
        if (r < 0)
                route->set = false; /* of the next table, so that it is not refused too */
        pthread_mutex_unlock(&k->routes->lock);
        return r;
}

void kvm_route_send(void *provider, int number)
{
        const struct kvm_machine *k = provider;
        static const uint64_t one = 1;
        /* KVM takes what was written at once: there is always room. */
        if (write(k->routes->routes[number].fd, &one, sizeof(one)) < 0)
                return;
}

void kvm_route_drop(void *provider, int number)
{
        const struct kvm_machine *k = provider;
        pthread_mutex_lock(&k->routes->lock);
        k->routes->routes[number].taken = k->routes->routes[number].set = false;
        pthread_mutex_unlock(&k->routes->lock);
}
