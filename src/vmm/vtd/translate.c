/* Root, context and page tables, and what is remembered of them. */
#include "vmm/vtd/state.h"

#include <string.h>

#define ROOT_TYPE           (3ull << 10) /* of the root table: 0 is the legacy format */
#define PRESENT             1ull
#define CONTEXT_QUIET       2ull /* faults are not recorded */
#define CONTEXT_KIND(low)   ((low) >> 2 & 3)
#define CONTEXT_RESERVED    0xff0ull
#define CONTEXT_RESERVED2   0xffffffffff000080ull
#define CONTEXT_WIDTH(high) ((unsigned)((high)&7)) /* 1: 3 levels, 2: 4 */
#define KIND_TABLES         0
#define KIND_PASS           2
#define ENTRY_READ          1ull
#define ENTRY_WRITE         2ull
#define ENTRY_LARGE         0x80ull
#define ENTRY_RESERVED      (1ull << 11 | 1ull << 62 | VTD_BEYOND) /* snoop, transient mapping */
#define INTERRUPTS          0xfeeull /* << 20: requests for interrupts, not for memory */

/* An access on its way through the tables. */
struct access {
        struct vtd *vtd;
        uint16_t source;
        uint64_t address;
        bool write, quiet;
};

/* ---- what is remembered ---- */

static struct vtd_mapping *place_of(struct vtd *v, uint16_t source, uint64_t address)
{
        return &v->iotlb[(address / VTD_PAGE ^ (uint64_t)source << 4) % VTD_IOTLB];
}

void vtd_forget_all(struct vtd *v)
{
        memset(v->iotlb, 0, sizeof(v->iotlb));
}

void vtd_forget_domain(struct vtd *v, uint16_t domain)
{
        for (unsigned i = 0; i < VTD_IOTLB; i++)
                if (v->iotlb[i].domain == domain)
                        v->iotlb[i].page = 0;
}

void vtd_forget_pages(struct vtd *v, uint16_t domain, uint64_t address, unsigned mask)
{
        uint64_t first = address & ~((VTD_PAGE << mask) - 1);
        uint64_t last = first + ((VTD_PAGE << mask) - 1);
        for (unsigned i = 0; i < VTD_IOTLB; i++) {
                struct vtd_mapping *m = &v->iotlb[i];
                if (m->domain == domain && m->first <= last && m->last >= first)
                        m->page = 0;
        }
}

/* ---- tables ---- */

bool vtd_entry_read(const struct vtd *v, uint64_t at, uint64_t ret[2])
{
        return memory_read(&v->machine->memory, gpa(at), ret, 16) == 0;
}

static bool refuse(const struct access *a, enum vtd_fault reason)
{
        if (!a->quiet)
                vtd_fault(a->vtd, a->source, reason, a->address & ~VTD_PAGE_MASK, !a->write);
        return false;
}

static bool context_of(struct access *a, uint64_t ret[2])
{
        struct vtd *v = a->vtd;
        uint64_t root[2];
        if (v->root & ROOT_TYPE ||
            !vtd_entry_read(v, (v->root & VTD_ADDRESS) + (a->source >> 8) * 16ull, root))
                return refuse(a, VTD_FAULT_ROOT_ADDRESS);
        if (!(root[0] & PRESENT))
                return refuse(a, VTD_FAULT_NO_ROOT);
        if (root[0] & ~(VTD_ADDRESS | PRESENT) || root[1])
                return refuse(a, VTD_FAULT_ROOT_RESERVED);
        if (!vtd_entry_read(v, (root[0] & VTD_ADDRESS) + (a->source & 0xff) * 16ull, ret))
                return refuse(a, VTD_FAULT_CONTEXT_ADDRESS);
        a->quiet = ret[0] & CONTEXT_QUIET;
        if (!(ret[0] & PRESENT))
                return refuse(a, VTD_FAULT_NO_CONTEXT);
        if (ret[0] & (CONTEXT_RESERVED | ~(VTD_ADDRESS | VTD_PAGE_MASK)) ||
            ret[1] & CONTEXT_RESERVED2)
                return refuse(a, VTD_FAULT_CONTEXT_RESERVED);
        return true;
}

/* Bits that must be zero in an entry of this level; 1 is the last. */
static uint64_t reserved_bits(unsigned level, uint64_t entry)
{
        uint64_t bits = ENTRY_RESERVED;
        if (level == 4)
                bits |= ENTRY_LARGE;
        else if (level > 1 && entry & ENTRY_LARGE)
                bits |= (VTD_PAGE << 9 * (level - 1)) - VTD_PAGE;
        return bits;
}

/* From the top table at `table`. The mapping's rights are what all entries allow. */
static bool walk(const struct access *a, uint64_t table, unsigned level, struct vtd_mapping *ret)
{
        ret->read = ret->write = true;
        if (a->address >> (12 + 9 * level))
                return refuse(a, VTD_FAULT_BEYOND);
        for (;; level--) {
                uint64_t size = VTD_PAGE << 9 * (level - 1), entry;
                uint64_t at = table + (a->address / size & 511) * 8;
                if (memory_read(&a->vtd->machine->memory, gpa(at), &entry, 8) < 0)
                        return refuse(a, VTD_FAULT_TABLE_ADDRESS);
                ret->read &= (entry & ENTRY_READ) != 0;
                ret->write &= (entry & ENTRY_WRITE) != 0;
                if (!(a->write ? ret->write : ret->read))
                        return refuse(a, a->write ? VTD_FAULT_WRITE : VTD_FAULT_READ);
                if (entry & reserved_bits(level, entry))
                        return refuse(a, VTD_FAULT_ENTRY_RESERVED);
                table = entry & VTD_ADDRESS;
                if (level > 1 && !(entry & ENTRY_LARGE))
                        continue;
                ret->first = a->address & ~(size - 1);
                ret->last = ret->first + (size - 1);
                ret->to = (table + (a->address & (size - 1))) & ~VTD_PAGE_MASK;
                return true;
        }
}

static bool look_up(struct access *a, struct vtd_mapping *ret)
{
        uint64_t context[2], page = a->address & ~VTD_PAGE_MASK;
        if (!context_of(a, context))
                return false;
        *ret = (struct vtd_mapping){ .page = page | 1,
                                     .to = page,
                                     .first = page,
                                     .last = page | VTD_PAGE_MASK,
                                     .source = a->source,
                                     .domain = (uint16_t)(context[1] >> 8),
                                     .read = true,
                                     .write = true };
        unsigned width = CONTEXT_WIDTH(context[1]);
        if (CONTEXT_KIND(context[0]) == KIND_PASS && width == 2)
                return true;
        if (CONTEXT_KIND(context[0]) != KIND_TABLES || width < 1 || width > 2)
                return refuse(a, VTD_FAULT_CONTEXT);
        return walk(a, context[0] & VTD_ADDRESS, width + 2, ret);
}

static bool mapped(struct access *a, struct vtd_mapping **ret)
{
        struct vtd_mapping *m = place_of(a->vtd, a->source, a->address), found;
        if (m->page != ((a->address & ~VTD_PAGE_MASK) | 1) || m->source != a->source ||
            !(a->write ? m->write : m->read)) {
                if (!look_up(a, &found))
                        return false;
                *m = found;
        }
        *ret = m;
        return true;
}

bool vtd_translate(void *arg, uint16_t source, uint64_t address, bool write, struct iommu_page *ret)
{
        struct vtd *v = arg;
        struct access a = { .vtd = v, .source = source, .address = address, .write = write };
        struct vtd_mapping *m;
        uint64_t offset = address & VTD_PAGE_MASK;
        bool ok = true;
        ret->at = address;
        ret->size_bytes = VTD_PAGE - offset;
        pthread_mutex_lock(&v->lock);
        if (v->status & VTD_TRANSLATE) {
                ok = address >> 20 != INTERRUPTS && mapped(&a, &m);
                if (ok)
                        ret->at = m->to + offset;
        }
        pthread_mutex_unlock(&v->lock);
        return ok;
}
