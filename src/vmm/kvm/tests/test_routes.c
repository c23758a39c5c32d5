#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

#include <cmocka.h>

#include "vmm/kvm/kvm.h"

/* A kernel that keeps what it is told. */
static struct {
        unsigned ties_length;
        unsigned tables;   /* how many came */
        int refuse_tables; /* errno; 0: it takes them */
} kernel;

static int told(unsigned long request, void *argument);
#define ioctl(fd, request, argument) told(request, (void *)(uintptr_t)(argument))
#include "vmm/kvm/routes.c"
#undef ioctl

static struct kvm_irqfd ties[KVM_ROUTES];
static union {
        struct kvm_irq_routing list;
        uint8_t bytes[sizeof(struct kvm_irq_routing) +
                      (KVM_ROUTES + KVM_ROUTES_LINES) * sizeof(struct kvm_irq_routing_entry)];
} table;

static int told(unsigned long request, void *argument)
{
        const struct kvm_irq_routing *list = argument;
        switch (request) {
        case KVM_CHECK_EXTENSION:
                return 1;
        case KVM_IRQFD:
                assert_true(kernel.ties_length < KVM_ROUTES);
                ties[kernel.ties_length++] = *(struct kvm_irqfd *)argument;
                return 0;
        case KVM_SET_GSI_ROUTING:
                errno = kernel.refuse_tables;
                if (errno)
                        return -1;
                memcpy(&table, list, sizeof(*list) + list->nr * sizeof(list->entries[0]));
                kernel.tables++;
                return 0;
        default:
                fail_msg("request 0x%lx", request);
                return -1;
        }
}

/* What KVM would deliver for a write to this descriptor; NULL: nothing. */
static const struct kvm_irq_routing_entry *entry_of(int fd)
{
        for (unsigned i = 0; i < kernel.ties_length; i++)
                for (unsigned e = 0; (int)ties[i].fd == fd && e < table.list.nr; e++)
                        if (table.list.entries[e].gsi == ties[i].gsi)
                                return &table.list.entries[e];
        return NULL;
}

static const struct irq_ops ops = {
        .route_take = kvm_route_take,
        .route_set = kvm_route_set,
        .route_send = kvm_route_send,
        .route_drop = kvm_route_drop,
};

struct fixture {
        struct kvm_machine k;
        struct irq irq;
};

static int set_up(void **state)
{
        struct fixture *f = new0(struct fixture);
        memset(&kernel, 0, sizeof(kernel));
        memset(&table, 0, sizeof(table));
        f->irq = (struct irq){ &ops, &f->k, NULL };
        kvm_routes_create(&f->k);
        assert_int_equal(kvm_routes_open(&f->k, 3, NULL), 0);
        assert_int_equal(kernel.ties_length, 3);
        assert_int_equal(kvm_routes_open(&f->k, KVM_ROUTES, NULL), 0);
        assert_int_equal(kernel.ties_length, KVM_ROUTES);
        *state = f;
        return 0;
}

static int tear_down(void **state)
{
        struct fixture *f = *state;
        kvm_routes_destroy(&f->k);
        free(f);
        return 0;
}

static uint64_t arrived(const struct fixture *f, const struct irq_route *route)
{
        uint64_t count = 0;
        ssize_t n = read(f->k.routes->routes[route->number].fd, &count, sizeof(count));
        return n == sizeof(count) ? count : 0;
}

static void messages_are_prepared_and_sent_by_their_descriptor(void **state)
{
        struct fixture *f = *state;
        struct irq_route a = { 0 }, b = { 0 };
        irq_prepare(&f->irq, &a, 0x1fee01000, 0x41);
        irq_prepare(&f->irq, &b, 0xfee00000, 0x42);
        const struct kvm_irq_routing_entry *e = entry_of(f->k.routes->routes[a.number].fd);
        assert_non_null(e);
        assert_int_equal(e->type, KVM_IRQ_ROUTING_MSI);
        assert_int_equal(e->u.msi.address_hi, 1);
        assert_int_equal(e->u.msi.address_lo, 0xfee01000);
        assert_int_equal(e->u.msi.data, 0x41);
        assert_true(irq_send_prepared(&f->irq, &a, 0x1fee01000, 0x41));
        assert_int_equal(arrived(f, &a), 1);
        assert_int_equal(arrived(f, &b), 0);
        /* The same again is no news to KVM; something else is, by the same descriptor. */
        unsigned tables = kernel.tables;
        irq_prepare(&f->irq, &a, 0x1fee01000, 0x41);
        assert_int_equal(kernel.tables, tables);
        irq_prepare(&f->irq, &a, 0xfee02000, 0x51);
        assert_int_equal(kernel.tables, tables + 1);
        assert_int_equal(entry_of(f->k.routes->routes[a.number].fd)->u.msi.data, 0x51);
        /* An older message is not sent by it. */
        assert_false(irq_send_prepared(&f->irq, &a, 0x1fee01000, 0x41));
}

static void lines_come_first_and_leave_messages_alone(void **state)
{
        struct fixture *f = *state;
        struct kvm_irq_routing_entry lines[3] = { { .gsi = 4 }, { .gsi = 5 }, { .gsi = 6 } };
        struct irq_route a = { 0 };
        irq_prepare(&f->irq, &a, 0xfee00000, 0x41);
        assert_int_equal(table.list.nr, 1);
        assert_int_equal(kvm_routes_lines(&f->k, lines, 3), 0);
        assert_int_equal(table.list.nr, 4);
        assert_int_equal(table.list.entries[2].gsi, 6);
        assert_int_equal(kvm_routes_lines(&f->k, lines + 1, 1), 0);
        assert_int_equal(table.list.nr, 2);
        assert_int_equal(table.list.entries[0].gsi, 5);
        assert_int_equal(entry_of(f->k.routes->routes[a.number].fd)->u.msi.data, 0x41);
        /* No line is taken for a message. */
        assert_true(table.list.entries[1].gsi >= LAYOUT_GSIS);
}

static void where_routes_run_out_the_message_itself_is_sent(void **state)
{
        struct fixture *f = *state;
        struct irq_route routes[KVM_ROUTES + 1] = { 0 }, *last = &routes[KVM_ROUTES];
        for (unsigned i = 0; i <= KVM_ROUTES; i++)
                irq_prepare(&f->irq, &routes[i], 0xfee00000, i);
        assert_int_equal(table.list.nr, KVM_ROUTES);
        assert_true(
                irq_send_prepared(&f->irq, &routes[KVM_ROUTES - 1], 0xfee00000, KVM_ROUTES - 1));
        assert_false(irq_send_prepared(&f->irq, last, 0xfee00000, KVM_ROUTES));
        irq_unprepare(&f->irq, &routes[7]);
        assert_false(irq_send_prepared(&f->irq, &routes[7], 0xfee00000, 7));
        irq_prepare(&f->irq, last, 0xfee00000, KVM_ROUTES);
        assert_true(irq_send_prepared(&f->irq, last, 0xfee00000, KVM_ROUTES));
        assert_int_equal(last->number, 7);
        assert_int_equal(arrived(f, last), 1);
}

static bool refused(void *arg, int source, uint64_t *address, uint32_t *data)
{
        (void)arg;
        (void)source;
        (void)address;
        (void)data;
        return false;
}

static void neither_a_refused_table_nor_an_iommu_lets_a_message_go_astray(void **state)
{
        struct fixture *f = *state;
        const struct irq_remap remap = { refused, NULL };
        struct irq_route a = { 0 }, b = { 0 };
        kernel.refuse_tables = EINVAL;
        irq_prepare(&f->irq, &a, 0xfee00000, 0x41);
        assert_false(irq_send_prepared(&f->irq, &a, 0xfee00000, 0x41));
        kernel.refuse_tables = 0;
        irq_prepare(&f->irq, &a, 0xfee00000, 0x41);
        assert_true(irq_send_prepared(&f->irq, &a, 0xfee00000, 0x41));
        f->irq.remap = &remap;
        irq_prepare(&f->irq, &b, 0xfee00000, 0x42);
        assert_false(irq_send_prepared(&f->irq, &b, 0xfee00000, 0x42));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(messages_are_prepared_and_sent_by_their_descriptor),
                TEST(lines_come_first_and_leave_messages_alone),
                TEST(where_routes_run_out_the_message_itself_is_sent),
                TEST(neither_a_refused_table_nor_an_iommu_lets_a_message_go_astray),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
