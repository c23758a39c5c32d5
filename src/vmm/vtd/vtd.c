/* The registers of the IOMMU. */
#include "base/auto.h"
#include "base/str.h"
#include "vmm/layout.h"
#include "vmm/vtd/state.h"

#define SWITCHES (VTD_TRANSLATE | VTD_QUEUE | VTD_REMAP | VTD_COMPATIBILITY)

#define CONTEXT_GO   (1ull << 63)
#define CONTEXT_DONE 59 /* where the granularity at 61 is answered */
#define IOTLB_GO     (1ull << 63)
#define IOTLB_DONE   57 /* where that at 60 is */
#define GRANULARITY  3ull

/* ---- what writes do ---- */

static void on_command(struct vtd *v)
{
        uint32_t c = v->command, turned_on = c & ~v->status;
        v->status = (v->status & ~SWITCHES) | (c & SWITCHES);
        if (c & VTD_SET_ROOT) {
                v->root = v->root_register;
                v->status |= VTD_SET_ROOT;
                vtd_forget_all(v);
        }
        if (c & VTD_SET_REMAP) {
                v->remap_table = v->remap_register;
                v->status |= VTD_SET_REMAP;
        }
        if (turned_on & VTD_TRANSLATE)
                vtd_forget_all(v);
        if (turned_on & VTD_QUEUE)
                v->queue_head = 0;
        v->command = 0; /* it reads as nothing */
        vtd_run_queue(v);
}

static void on_context_command(struct vtd *v)
{
        if (!(v->context_command & CONTEXT_GO))
                return;
        uint64_t granularity = v->context_command >> 61 & GRANULARITY;
        vtd_forget_all(v);
        v->context_command &= ~(CONTEXT_GO | GRANULARITY << CONTEXT_DONE);
        v->context_command |= granularity << CONTEXT_DONE;
}

static void on_iotlb_command(struct vtd *v)
{
        if (!(v->iotlb_command & IOTLB_GO))
                return;
        uint64_t granularity = v->iotlb_command >> 60 & GRANULARITY;
        uint16_t domain = (uint16_t)(v->iotlb_command >> 32);
        unsigned mask = v->iotlb_address & 63;
        if (granularity == 3 && mask <= VTD_MASK_MAX)
                vtd_forget_pages(v, domain, v->iotlb_address & ~VTD_PAGE_MASK, mask);
        else if (granularity == 2)
                vtd_forget_domain(v, domain);
        else
                vtd_forget_all(v);
        v->iotlb_command &= ~(IOTLB_GO | GRANULARITY << IOTLB_DONE);
        v->iotlb_command |= granularity << IOTLB_DONE;
}

static void on_fault_status(struct vtd *v)
{
        vtd_faults_changed(v);
        vtd_run_queue(v); /* it may have stood at an error */
}

/* ---- the table of registers (11.4) ---- */

struct vtd_register {
        uint16_t at;
        uint8_t size;
        uint16_t member;
        uint64_t writable, cleared; /* by writing ones */
        void (*written)(struct vtd *v);
};

#define REGISTER(at, name, writable, cleared, written)                                             \
        {                                                                                          \
                at, sizeof(((struct vtd *)0)->name), offsetof(struct vtd, name), writable,         \
                        cleared, written                                                           \
        }
#define ALL32  0xffffffffull
#define MASKED (1ull << 31)

static const struct vtd_register registers[] = {
        REGISTER(0x00, version, 0, 0, NULL),
        REGISTER(0x08, capability, 0, 0, NULL),
        REGISTER(0x10, extended, 0, 0, NULL),
        REGISTER(0x18, command, ALL32, 0, on_command),
        REGISTER(0x1c, status, 0, 0, NULL),
        REGISTER(0x20, root_register, ~0x3ffull, 0, NULL),
        REGISTER(0x28, context_command, ~(GRANULARITY << CONTEXT_DONE), 0, on_context_command),
        REGISTER(0x34, fault_status, 0, VTD_FAULT_OVERFLOW | VTD_FAULT_QUEUE_ERROR,
                 on_fault_status),
        REGISTER(0x38, fault_event.control, MASKED, 0, vtd_faults_changed),
        REGISTER(0x3c, fault_event.data, ALL32, 0, NULL),
        REGISTER(0x40, fault_event.address, 0xfffffffcull, 0, NULL),
        REGISTER(0x44, fault_event.address_high, ALL32, 0, NULL),
        REGISTER(0x64, protected_memory, 0, 0, NULL),
        REGISTER(0x80, queue_head, 0, 0, NULL),
        REGISTER(0x88, queue_tail, 0x7fff0ull, 0, vtd_run_queue),
        REGISTER(0x90, queue_address, ~0xff8ull, 0, NULL),
        REGISTER(0x9c, completion_status, 0, 1, vtd_completion_changed),
        REGISTER(0xa0, completion_event.control, MASKED, 0, vtd_completion_changed),
        REGISTER(0xa4, completion_event.data, ALL32, 0, NULL),
        REGISTER(0xa8, completion_event.address, 0xfffffffcull, 0, NULL),
        REGISTER(0xac, completion_event.address_high, ALL32, 0, NULL),
        REGISTER(0xb8, remap_register, ~0xff0ull, 0, NULL),
        REGISTER(VTD_IOTLB_AT, iotlb_address, UINT64_MAX, 0, NULL),
        REGISTER(VTD_IOTLB_AT + 8, iotlb_command, ~(GRANULARITY << IOTLB_DONE), 0,
                 on_iotlb_command),
        REGISTER(VTD_FAULT_AT, record[0], 0, 0, NULL),
        REGISTER(VTD_FAULT_AT + 8, record[1], 0, 1ull << 63, vtd_faults_changed),
};

static uint64_t value_of(const struct vtd *v, const struct vtd_register *r)
{
        const char *at = (const char *)v + r->member;
        return r->size == 8 ? *(const uint64_t *)(const void *)at
                            : *(const uint32_t *)(const void *)at;
}

static void set_value(struct vtd *v, const struct vtd_register *r, uint64_t value)
{
        char *at = (char *)v + r->member;
        if (r->size == 8)
                *(uint64_t *)(void *)at = value;
        else
                *(uint32_t *)(void *)at = (uint32_t)value;
}

/* Where a register lies in an access, and which of its bits that reaches; 0: none. */
static uint64_t reached(const struct vtd_register *r, uint64_t offset, unsigned size,
                        int *ret_shift)
{
        if (offset + size <= r->at || offset >= (uint64_t)r->at + r->size)
                return 0;
        *ret_shift = 8 * ((int)r->at - (int)offset);
        uint64_t bits = size_mask(size);
        bits = *ret_shift >= 0 ? bits >> *ret_shift : bits << -*ret_shift;
        return bits & size_mask(r->size);
}

static bool possible(uint64_t offset, unsigned size)
{
        return size >= 4 && offset % size == 0;
}

static uint64_t registers_read(void *device, uint64_t offset, unsigned size)
{
        const struct vtd *v = device;
        uint64_t value = 0;
        int shift;
        for (unsigned i = 0; possible(offset, size) && i < ELEMENTS(registers); i++) {
                if (!reached(&registers[i], offset, size, &shift))
                        continue;
                uint64_t whole = value_of(v, &registers[i]);
                value |= shift >= 0 ? whole << shift : whole >> -shift;
        }
        return value & size_mask(size);
}

static void registers_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct vtd *v = device;
        int shift;
        for (unsigned i = 0; possible(offset, size) && i < ELEMENTS(registers); i++) {
                const struct vtd_register *r = &registers[i];
                uint64_t bits = reached(r, offset, size, &shift);
                if (!bits)
                        continue;
                uint64_t given = (shift >= 0 ? value >> shift : value << -shift) & bits;
                uint64_t old = value_of(v, r), changing = r->writable & bits;
                set_value(v, r, ((old & ~changing) | (given & changing)) & ~(given & r->cleared));
                if (r->written)
                        r->written(v);
        }
}

static const struct bus_ops bus = { registers_read, registers_write };

/* ---- the device ---- */

static void destroy(struct device *device)
{
        struct vtd *v = container_of(device, struct vtd, device);
        v->machine->iommu = NULL;
        v->machine->irq.remap = NULL;
        pthread_mutex_destroy(&v->lock);
        free(v);
}

int vtd_create(struct machine *machine, struct err *err)
{
        struct vtd *v = new0(struct vtd);
        v->machine = machine;
        v->version = VTD_VERSION;
        v->capability = VTD_CAPABILITY;
        v->extended = VTD_EXTENDED;
        v->fault_event.control = v->completion_event.control = MASKED;
        v->iommu = (struct iommu){ vtd_translate, v };
        v->remap = (struct irq_remap){ vtd_remap, v };
        pthread_mutex_init(&v->lock, NULL);
        machine_add_device(machine, &v->device, "iommu", destroy);
        machine->iommu = &v->iommu;
        machine->irq.remap = &v->remap;
        const struct bus_region region = { LAYOUT_IOMMU, LAYOUT_IOMMU_SIZE, &bus, v, &v->lock,
                                           "IOMMU" };
        return bus_add(&machine->mmio, &region, err);
}
