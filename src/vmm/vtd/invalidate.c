/* The queue of invalidations: descriptors of 16 bytes in a ring of whole pages. */
#include "vmm/vtd/state.h"

#define QUEUE_PAGES(address) (1u << ((address)&7))
#define SLOTS_PER_PAGE       256u
#define SLOT(register)       ((unsigned)((register) >> 4 & 0x7fff))

#define WAIT_MESSAGE (1ull << 4)
#define WAIT_WRITE   (1ull << 5)

/* Granularities of contexts and of pages alike. */
enum { ALL = 1, DOMAIN = 2, SELECTED = 3 };

static unsigned granularity(const uint64_t d[2])
{
        return d[0] >> 4 & 3;
}

/* What is remembered of contexts is in the IOTLB. */
static bool contexts(struct vtd *v, const uint64_t d[2])
{
        vtd_forget_all(v);
        return granularity(d) != 0;
}

static bool pages(struct vtd *v, const uint64_t d[2])
{
        uint16_t domain = (uint16_t)(d[0] >> 16);
        unsigned mask = d[1] & 63;
        switch (granularity(d)) {
        case ALL:
                vtd_forget_all(v);
                return true;
        case DOMAIN:
                vtd_forget_domain(v, domain);
                return true;
        case SELECTED:
                if (mask > VTD_MASK_MAX)
                        return false;
                vtd_forget_pages(v, domain, d[1] & ~VTD_PAGE_MASK, mask);
                return true;
        default:
                return false;
        }
}

/* Entries of the remapping table are read anew each time. */
static bool interrupts(struct vtd *v, const uint64_t d[2])
{
        (void)v, (void)d;
        return true;
}

static bool wait_for_it(struct vtd *v, const uint64_t d[2])
{
        uint32_t status = (uint32_t)(d[0] >> 32);
        if (d[0] & WAIT_WRITE) /* into nothing, where that is no memory */
                (void)memory_write(&v->machine->memory, gpa(d[1] & ~3ull), &status, sizeof(status));
        if (d[0] & WAIT_MESSAGE)
                vtd_completed(v);
        return true;
}

/* By kind; those that there are not stop the queue. */
static bool (*const kinds[16])(struct vtd *v, const uint64_t d[2]) = {
        [1] = contexts,
        [2] = pages,
        [4] = interrupts,
        [5] = wait_for_it,
};

static bool next(struct vtd *v, unsigned slots)
{
        unsigned head = SLOT(v->queue_head);
        uint64_t d[2];
        if (head >= slots || !vtd_entry_read(v, (v->queue_address & VTD_ADDRESS) + head * 16ull, d))
                return false;
        if (!kinds[d[0] & 15] || d[0] & 0xe00 || !kinds[d[0] & 15](v, d))
                return false;
        v->queue_head = (uint64_t)((head + 1) % slots) << 4;
        return true;
}

void vtd_run_queue(struct vtd *v)
{
        unsigned slots = QUEUE_PAGES(v->queue_address) * SLOTS_PER_PAGE;
        bool ok = SLOT(v->queue_tail) < slots;
        if (!(v->status & VTD_QUEUE) || v->fault_status & VTD_FAULT_QUEUE_ERROR)
                return;
        while (ok && SLOT(v->queue_head) != SLOT(v->queue_tail))
                ok = next(v, slots);
        if (!ok)
                vtd_fault_status(v, VTD_FAULT_QUEUE_ERROR);
}
